"""Gated DeltaNet (arXiv:2412.06464) between layers of gated attention, with dense layers or experts behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.accounting.anatomy import Anatomy, Block, Matrix, Mixing
from tasks.accounting.attention import gated_mlp, grouped_query, scores
from tasks.accounting.decoder import assemble, per_head_norms
from tasks.accounting.experts import routed, shared
from tasks.accounting.recurrent import FLOAT32, Convolution, chunks_of
from tasks.models import Config

CHUNK = 64
"""Tokens of a chunk: the default of transformers' `torch_chunk_gated_delta_rule`, which no config sets."""


@dataclass(frozen=True)
class DeltaRule:
    """The gated delta rule, solved within chunks and carried between them.

    Attributes:
        heads: of the values; each has a key, shared or not.
        key_dim: of a head.
        value_dim: of a head.
        convolution: of what becomes queries, keys and values.
        order: after the input projections.
    """

    heads: int
    key_dim: int
    value_dim: int
    convolution: Convolution
    order: int = 1

    def forward_flops(self, context: int) -> float:
        """Convolution, norms of queries and keys, products and triangular systems of every chunk."""
        tokens = self.heads * CHUNK * chunks_of(context, CHUNK)
        products = 4.0 * CHUNK * self.key_dim + 2.0 * CHUNK * self.value_dim + 6.0 * self.key_dim * self.value_dim
        return self.convolution.forward_flops(context) + self._norms(context) + tokens * (products + self._systems)

    def backward_flops(self, context: int, trained: bool) -> float:
        """Both operands of every product.

        A system takes one more system and a product. The first chunk's state is zero and the last one's is nobody's, so
        the products with them have fewer gradients. Gates and decays gather theirs over what they scale.
        """
        chunks = chunks_of(context, CHUNK)
        tokens, state = self.heads * CHUNK * chunks, self.key_dim * self.value_dim
        products = 4.0 * CHUNK * self.key_dim + 2.0 * CHUNK * self.value_dim + 6.0 * state
        none = self.heads * CHUNK * (2 * 2.0 * state + 4.0 * state)
        carried = 2.0 * self.heads * state * max(0, chunks - 1)
        gathered = tokens * 2.0 * (4 * self.key_dim + self.value_dim) + 2 * self._norms(context)
        return (
            self.convolution.backward_flops(context, trained)
            + tokens * (2 * products + 3 * self._systems)
            - none
            + carried
            + gathered
        )

    def decode_flops(self, position: int) -> float:  # noqa: ARG002 (Mixing's name)
        """Convolution, norms, the state read with the key and with the query; its update is element-wise."""
        return self.convolution.decode_flops + self._norms(1) + 4.0 * self.heads * self.key_dim * self.value_dim

    def cache_bytes(self, context: int, element: int) -> int:  # noqa: ARG002 (Mixing's name)
        """Last inputs of the convolution and the state, however long the context."""
        return self.convolution.cache_bytes(element) + self.heads * self.key_dim * self.value_dim * FLOAT32

    def _norms(self, context: int) -> float:
        return 4.0 * context * self.heads * self.key_dim

    @property
    def _systems(self) -> float:
        """A token's share of two unit triangular systems: size squared FLOPs per right-hand side (LAPACK's count)."""
        return float(CHUNK * (self.key_dim + self.value_dim))


def qwen3_next(config: Config) -> Anatomy:
    """Qwen3NextForCausalLM, experts or dense."""
    width = config["hidden_size"]
    blocks = []
    every = config.get("full_attention_interval", 4)
    usual = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(config["num_hidden_layers"])]
    for i, kind in enumerate(config.get("layer_types") or usual):
        matrices, mixing, vectors = _linear(config) if kind == "linear_attention" else _full(config)
        blocks.append(Block(f"model.layers.{i}", matrices + _behind(config, i), (mixing,), vectors + 2 * width))
    return assemble(config, tuple(blocks))


def _linear(config: Config) -> tuple[tuple[Matrix, ...], Mixing, int]:
    width, heads = config["hidden_size"], config["linear_num_value_heads"]
    key_dim, value_dim = config["linear_key_head_dim"], config["linear_value_head_dim"]
    keys, values = config["linear_num_key_heads"] * key_dim, heads * value_dim
    convolution = Convolution(2 * keys + values, config["linear_conv_kernel_dim"])
    matrices = (
        Matrix("linear_attn.in_proj_qkvz", width, 2 * keys + 2 * values, 0),
        Matrix("linear_attn.in_proj_ba", width, 2 * heads, 0),
        Matrix("linear_attn.out_proj", values, width, 2),
    )
    vectors = convolution.channels * convolution.kernel + 2 * heads + value_dim
    return matrices, DeltaRule(heads, key_dim, value_dim, convolution), vectors


def _full(config: Config) -> tuple[tuple[Matrix, ...], Mixing, int]:
    """Queries come with a gate of their size, which scales what they have seen."""
    bias = bool(config.get("attention_bias", False))
    query, *others = grouped_query(config, bias, bias)
    gated = replace(query, outputs=2 * query.outputs)
    return (gated, *others), scores(config), per_head_norms(config)


def _behind(config: Config, index: int) -> tuple[Matrix, ...]:
    """Experts and one that every token passes, weighed by a gate; dense where the config says so."""
    width, experts = config["hidden_size"], config["num_experts"]
    dense = index in (config.get("mlp_only_layers") or []) or (index + 1) % config.get("decoder_sparse_step", 1)
    if dense or not experts:
        return gated_mlp(width, config["intermediate_size"])
    return (
        *routed(width, config["moe_intermediate_size"], experts, config["num_experts_per_tok"]),
        *shared(width, config["shared_expert_intermediate_size"], "shared_expert"),
        Matrix("mlp.shared_expert_gate", width, 1, 3, way="gate"),
    )
