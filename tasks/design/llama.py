"""Dense decoder in the manner of Llama, with MHA, GQA or MQA by its number of key-value heads."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from tasks.core.schema import Technique
from tasks.models.accounting import Config, parameters


class Llama(Technique):
    """Dense decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention (arXiv:2302.13971)."""

    parameters: PositiveInt | None = None
    """Parameter budget: sizes are chosen as the largest that fits; null: the sizes below are used as they are."""
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
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not divisible by "
                f"num_key_value_heads {self.num_key_value_heads}"
            )
        if (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError("the size of a head (hidden_size / num_attention_heads) must be even for rotary positions")
        return self

    def blueprint(self, vocab_size: int, init: Path) -> Config:
        """The transformers config of this model with `vocab_size` tokens; `init` isn't read.

        Raises:
            ValueError: `parameters` is smaller than the smallest model of this family with that vocabulary.
        """
        return self._config(vocab_size)

    def _config(self, vocab_size: int) -> Config:
        sized = self if self.parameters is None else self._sized(vocab_size)
        fields = sized.model_dump(exclude={"parameters"})
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab_size, **fields}

    def _sized(self, vocab_size: int) -> Llama:
        """Largest model within `parameters`: heads of 64, depth near width / 48, SwiGLU of 8/3 the width."""
        best, smallest = None, 0
        for width in range(64, 8193, 64):
            heads = width // 64
            candidate = self.model_copy(
                update={
                    "parameters": None,
                    "hidden_size": width,
                    "intermediate_size": (width * 8 // 3 + 63) // 64 * 64,
                    "num_hidden_layers": max(2, round(width / 48)),
                    "num_attention_heads": heads,
                    "num_key_value_heads": heads // 2 if heads % 2 == 0 else heads,
                }
            )
            size = parameters(candidate._config(vocab_size))
            smallest = smallest or size
            if size > (self.parameters or 0):
                break
            best = candidate
        if best is None:
            raise ValueError(
                f"parameters: found {self.parameters}; the smallest of this family with a vocabulary of {vocab_size} "
                f"has {smallest}: raise it, or lower data.tokenizer.train.vocab_size"
            )
        return best
