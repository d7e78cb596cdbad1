"""RWKV-4 (arXiv:2305.13048): a recurrence without a product, between two pairs of projections."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting.anatomy import Anatomy, Block, Matrix
from tasks.accounting.recurrent import FLOAT32
from tasks.models import Config

MIXES = 5
"""Vectors that mix a token with the one before: three of the time mixing, two of the channel mixing."""


@dataclass(frozen=True)
class TimeMixing:
    """Decayed averages, element by element: nothing the convention counts, but for gradients of the mixing vectors.

    Attributes:
        width: of the residual stream.
        order: after key, value and receptance.
    """

    width: int
    order: int = 1

    def forward_flops(self, context: int) -> float:  # noqa: ARG002 (Mixing's name)
        """Element-wise."""
        return 0.0

    def backward_flops(self, context: int, trained: bool) -> float:
        """Every mixing vector scales a token and the one before: two products summed over the sequence."""
        return 2.0 * 2 * MIXES * context * self.width if trained else 0.0

    def decode_flops(self, position: int) -> float:  # noqa: ARG002 (Mixing's name)
        """Element-wise."""
        return 0.0

    def cache_bytes(self, context: int, element: int) -> int:  # noqa: ARG002 (Mixing's name)
        """Two last inputs in the model's type; numerator, denominator and largest exponent in single precision."""
        return self.width * (2 * element + 3 * FLOAT32)


def rwkv(config: Config) -> Anatomy:
    """RwkvForCausalLM."""
    width = config["hidden_size"]
    inner = config.get("intermediate_size") or 4 * width
    attention = config.get("attention_hidden_size") or width
    matrices = (
        Matrix("attention.key", width, attention, 0),
        Matrix("attention.value", width, attention, 0),
        Matrix("attention.receptance", width, attention, 0),
        Matrix("attention.output", attention, width, 2),
        Matrix("feed_forward.key", width, inner, 3),
        Matrix("feed_forward.receptance", width, width, 3),
        Matrix("feed_forward.value", inner, width, 4),
    )
    vectors = 2 * attention + MIXES * width + 4 * width
    return Anatomy(
        width=width,
        vocab=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        blocks=tuple(
            Block(f"rwkv.blocks.{i}", matrices, (TimeMixing(width),), vectors + (2 * width if i == 0 else 0))
            for i in range(config["num_hidden_layers"])
        ),
        vectors=2 * width,
        head="head",
    )
