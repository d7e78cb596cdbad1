"""Dense decoder in the manner of Llama, with MHA, GQA or MQA by its number of key-value heads."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, PositiveInt, model_validator

from tasks.design.family import Family, check_heads, heads_of


class Llama(Family):
    """Dense decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention (arXiv:2302.13971)."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"

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
        check_heads(self.hidden_size, self.num_attention_heads, self.num_key_value_heads)
        return self

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48."""
        return heads_of(width)
