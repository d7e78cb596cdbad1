"""What a language model is made of, as far as its costs go: matrices, vectors, and what happens between tokens.

A multiply-add counts as two FLOPs. Element-wise work (norms, activations, softmax, gates) is not counted, as in
`torch.utils.flop_counter`; a product that is summed over is a multiply-add whichever operators spell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Matrix:
    """A linear layer inside a block.

    Attributes:
        name: within its block, as in the module tree: `self_attn.q_proj`.
        inputs: columns of the weight.
        outputs: rows of the weight.
        order: its place on the data's way through the block; equal: they read the same input.
        bias: whether it adds a vector.
        copies: matrices of this size beside one another (experts).
        active: how many of the copies a token passes.
        module: whether it is a linear module, which adapters and quantizers find by its name; experts that lie in one
            three-dimensional tensor are none.
        way: where the block forks (queries and keys, experts and shared experts), the branch it lies on: it reads
            nothing that is made on another one before they meet. Empty: on all of them.
    """

    name: str
    inputs: int
    outputs: int
    order: int
    bias: bool = False
    copies: int = 1
    active: int = 1
    module: bool = True
    way: str = ""

    @property
    def parameters(self) -> int:
        """Weights and biases of all copies."""
        return self.copies * self._one

    @property
    def active_parameters(self) -> int:
        """Weights and biases a token passes."""
        return self.active * self._one

    @property
    def flops(self) -> int:
        """Forward FLOPs of one token."""
        return 2 * self.active * self.inputs * self.outputs

    @property
    def _one(self) -> int:
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)


class Mixing(Protocol):
    """What happens between tokens, beside the matrices: attention, a scan."""

    @property
    def order(self) -> int:
        """Its place among the block's matrices: it reads what those of a lower order made."""

    def forward_flops(self, context: int) -> float:
        """FLOPs of a whole sequence of `context` tokens, forward."""

    def decode_flops(self, position: int) -> float:
        """FLOPs of one more token after `position` others."""

    def cache_bytes(self, context: int, element: int) -> int:
        """Bytes kept for one sequence of `context` tokens, `element` bytes a number where the model's type is used."""


@runtime_checkable
class Uneven(Mixing, Protocol):
    """A mixing whose backward pass isn't twice its forward pass."""

    def backward_flops(self, context: int, trained: bool) -> float:
        """FLOPs of a whole sequence's gradients; `trained`: those of its own weights too."""


def backward_flops(part: Mixing, context: int, trained: bool) -> float:
    """FLOPs of a whole sequence backward: both operands of every product get a gradient, unless the part knows better."""
    return part.backward_flops(context, trained) if isinstance(part, Uneven) else 2 * part.forward_flops(context)


@dataclass(frozen=True)
class Block:
    """One layer.

    Attributes:
        name: in the module tree: `model.layers.3`.
        matrices: in the order of the data.
        mixings: between tokens; mostly one.
        vectors: every other parameter: norms, convolutions, decays.
    """

    name: str
    matrices: tuple[Matrix, ...]
    mixings: tuple[Mixing, ...]
    vectors: int

    @property
    def parameters(self) -> int:
        """All of the block's."""
        return self.vectors + sum(matrix.parameters for matrix in self.matrices)

    @property
    def matrix_flops(self) -> int:
        """Forward FLOPs of one token in the matrices."""
        return sum(matrix.flops for matrix in self.matrices)


@dataclass(frozen=True)
class Anatomy:
    """A whole model.

    Attributes:
        width: of the residual stream.
        vocab: tokens.
        tied: whether the output layer is the input embedding.
        blocks: the layers.
        vectors: parameters outside the blocks and the embeddings: the last norm.
        head: name of the output layer in the module tree.
        head_bias: whether the output layer adds a vector.
    """

    width: int
    vocab: int
    tied: bool
    blocks: tuple[Block, ...]
    vectors: int
    head: str = "lm_head"
    head_bias: bool = False

    @property
    def layers(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @property
    def embedding(self) -> int:
        """Parameters of input embedding and output layer, tied ones once."""
        return self.vocab * self.width * (1 if self.tied else 2) + (self.vocab if self.head_bias else 0)

    @property
    def linear(self) -> int:
        """Weights of the linear modules inside the blocks: what adapters adapt and quantizers quantize."""
        return sum(m.inputs * m.outputs * m.copies for block in self.blocks for m in block.matrices if m.module)

    @property
    def parameters(self) -> int:
        """All, tied ones once."""
        return self.embedding + self.vectors + sum(block.parameters for block in self.blocks)

    @property
    def head_matrix(self) -> Matrix:
        """The output layer."""
        return Matrix(self.head, self.width, self.vocab, 0)
