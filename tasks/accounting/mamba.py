"""Mamba-2: a state-space model computed in chunks (arXiv:2405.21060), alone or between layers of attention."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting.anatomy import Anatomy, Block, Matrix
from tasks.accounting.attention import gated_mlp, grouped_query, scores
from tasks.accounting.decoder import assemble
from tasks.accounting.recurrent import FLOAT32, Convolution, chunks_of
from tasks.models import Config


@dataclass(frozen=True)
class Scan:
    """The recurrence of every head, as a product within chunks and a recurrence between them.

    Attributes:
        heads: each with its own decay.
        head_dim: channels of a head.
        state: numbers kept per channel.
        chunk: tokens of a chunk; the last one is filled up.
        convolution: of what enters the recurrence.
        order: after the input projection.
    """

    heads: int
    head_dim: int
    state: int
    chunk: int
    convolution: Convolution
    order: int = 1

    def forward_flops(self, context: int) -> float:
        """Convolution, the five products of the scan."""
        return self.convolution.forward_flops(context) + self._scan(context)

    def backward_flops(self, context: int, trained: bool) -> float:
        """Both operands of the scan's products, and the sums that gather the gradients of decays, steps and skips."""
        padded = self.chunk * chunks_of(context, self.chunk)
        gathered = 2.0 * padded * self.heads * (self.state + 2 * self.head_dim)
        skip = 2.0 * padded * self.heads * self.head_dim if trained else 0.0
        return self.convolution.backward_flops(context, trained) + 2 * self._scan(context) + gathered + skip

    def decode_flops(self, position: int) -> float:  # noqa: ARG002 (Mixing's name)
        """Convolution, and the state's product with C; its update is element-wise."""
        return self.convolution.decode_flops + 2.0 * self.heads * self.head_dim * self.state

    def cache_bytes(self, context: int, element: int) -> int:  # noqa: ARG002 (Mixing's name)
        """Last inputs of the convolution and the state, however long the context."""
        return self.convolution.cache_bytes(element) + self.heads * self.head_dim * self.state * FLOAT32

    def _scan(self, context: int) -> float:
        """C with B and their use within chunks, states of chunks, the recurrence over chunks, states with C."""
        chunks = chunks_of(context, self.chunk)
        inside = 2.0 * chunks * self.chunk**2 * self.heads * (self.state + self.head_dim)
        states = 2.0 * chunks * self.chunk * self.heads * self.head_dim * self.state
        between = 2.0 * (chunks + 1) ** 2 * self.heads * self.head_dim * self.state
        return inside + 2 * states + between


@dataclass(frozen=True)
class Mixer:
    """Sizes of the layer, by one name for both architectures that hold it.

    Attributes:
        width: of the residual stream.
        heads: of the recurrence.
        head_dim: channels of a head.
        state: numbers kept per channel.
        groups: of heads that share B and C.
        kernel: of the convolution.
        chunk: tokens of a chunk.
        bias: whether the projections add a vector.
        conv_bias: whether the convolution does.
        name: in the block's module tree.
    """

    width: int
    heads: int
    head_dim: int
    state: int
    groups: int
    kernel: int
    chunk: int
    bias: bool
    conv_bias: bool
    name: str

    @property
    def inner(self) -> int:
        """Channels of the recurrence."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution: the recurrence's, and B and C of every group."""
        return self.inner + 2 * self.groups * self.state

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """Input projection (gate, channels, step of every head) and output projection."""
        projected = self.inner + self.channels + self.heads
        return (
            Matrix(f"{self.name}.in_proj", self.width, projected, 0, self.bias),
            Matrix(f"{self.name}.out_proj", self.inner, self.width, 2, self.bias),
        )

    @property
    def vectors(self) -> int:
        """Convolution; decay, step and skip of every head; the gated norm."""
        return self.channels * (self.kernel + self.conv_bias) + 3 * self.heads + self.inner

    @property
    def scan(self) -> Scan:
        """Its recurrence."""
        return Scan(self.heads, self.head_dim, self.state, self.chunk, Convolution(self.channels, self.kernel))


def mamba2(config: Config) -> Anatomy:
    """Mamba2ForCausalLM: a norm and a mixer per layer, no feed-forward layer."""
    width = config["hidden_size"]
    mixer = Mixer(
        width=width,
        heads=config["num_heads"],
        head_dim=config["head_dim"],
        state=config["state_size"],
        groups=config["n_groups"],
        kernel=config.get("conv_kernel", 4),
        chunk=config["chunk_size"],
        bias=bool(config.get("use_bias", False)),
        conv_bias=bool(config.get("use_conv_bias", True)),
        name="mixer",
    )
    names = [f"backbone.layers.{i}" for i in range(config["num_hidden_layers"])]
    blocks = tuple(Block(name, mixer.matrices, (mixer.scan,), mixer.vectors + width) for name in names)
    return assemble(config, blocks)


def bamba(config: Config) -> Anatomy:
    """BambaForCausalLM: attention in the layers named, Mamba-2 in the others, a gated feed-forward layer in each."""
    width = config["hidden_size"]
    heads = config["mamba_n_heads"]
    mixer = Mixer(
        width=width,
        heads=heads,
        head_dim=config.get("mamba_expand", 2) * width // heads,
        state=config["mamba_d_state"],
        groups=config.get("mamba_n_groups", 1),
        kernel=config.get("mamba_d_conv", 4),
        chunk=config["mamba_chunk_size"],
        bias=bool(config.get("mamba_proj_bias", False)),
        conv_bias=bool(config.get("mamba_conv_bias", True)),
        name="mamba",
    )
    bias = bool(config.get("attention_bias", False))
    feed = gated_mlp(width, config["intermediate_size"], "feed_forward", bool(config.get("mlp_bias", False)))
    attending = set(config.get("attn_layer_indices") or ())
    blocks = []
    for i in range(config["num_hidden_layers"]):
        name = f"model.layers.{i}"
        if i in attending:
            attention = grouped_query(config, bias, bias)
            blocks.append(Block(name, attention + feed, (scores(config),), 2 * width))
        else:
            blocks.append(Block(name, mixer.matrices + feed, (mixer.scan,), mixer.vectors + 2 * width))
    return assemble(config, tuple(blocks))
