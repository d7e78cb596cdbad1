"""Fields of every decoder with attention in all its layers."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from tasks.design.family import Family, check_heads, heads_of


class Decoder(Family):
    """A decoder with grouped-query attention; families add what is their own."""

    hidden_size: PositiveInt = 256
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 704
    """Width of the feed-forward layer."""
    num_hidden_layers: PositiveInt = 6
    """Number of decoder layers."""
    num_attention_heads: PositiveInt = 4
    """Query heads."""
    num_key_value_heads: PositiveInt = 2
    """Key-value heads; equal to the query heads: MHA, 1: MQA, between: GQA."""
    max_position_embeddings: PositiveInt = 1024
    """Longest context."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool = True
    """Share the input embedding with the output layer."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        check_heads(
            self.hidden_size, self.num_attention_heads, self.num_key_value_heads, getattr(self, "head_dim", None)
        )
        return self

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48."""
        return heads_of(width)


def check_window(window: int, longest: int) -> None:
    """Refuse a window that no context fills.

    Raises:
        ValueError: names both fields and numbers.
    """
    if window > longest:
        raise ValueError(
            f"sliding_window {window} is above max_position_embeddings {longest}: nothing would ever leave it; "
            "lower it, or take llama"
        )


def rounded(width: float) -> int:
    """The nearest multiple of 64, at least 64: what quantizers' groups and tensor cores like."""
    return max(64, round(width / 64) * 64)
