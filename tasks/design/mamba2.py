"""State-space model without attention: memory of a fixed size, however long the context."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import PositiveInt, model_validator

from tasks.design.family import Family, check_recurrence


class Mamba2(Family):
    """State-space model, computed in chunks: no attention, no feed-forward layers (arXiv:2405.21060)."""

    model_type: ClassVar[str] = "mamba2"
    architecture: ClassVar[str] = "Mamba2ForCausalLM"

    hidden_size: PositiveInt = 256
    """Width of the residual stream."""
    num_hidden_layers: PositiveInt = 10
    """Number of layers; each is a mixer alone, so twice those of a transformer make the same size."""
    expand: PositiveInt = 2
    """Width of the mixer, in widths of the residual stream."""
    num_heads: PositiveInt = 8
    """Heads of the recurrence, each with a decay of its own."""
    head_dim: PositiveInt = 64
    """Channels of a head; num_heads x head_dim = expand x hidden_size."""
    state_size: PositiveInt = 64
    """Numbers kept for each channel."""
    n_groups: PositiveInt = 1
    """Groups of heads that share what they write and read (B and C)."""
    conv_kernel: PositiveInt = 4
    """Tokens the short convolution before the recurrence sees."""
    chunk_size: PositiveInt = 64
    """Tokens computed at once as products; the last chunk of a sequence is filled up."""
    max_position_embeddings: PositiveInt = 1024
    """Longest context that later stages may ask for; the model itself has no limit."""
    tie_word_embeddings: bool = True
    """Share the input embedding with the output layer."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        check_recurrence(
            ("expand", self.expand),
            self.hidden_size,
            ("num_heads", self.num_heads),
            ("head_dim", self.head_dim),
            ("n_groups", self.n_groups),
        )
        return self

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, twice as many as the residual stream has, depth near width / 24."""
        return {
            "hidden_size": width,
            "expand": 2,
            "num_heads": width // 32,
            "head_dim": 64,
            "num_hidden_layers": max(2, round(width / 24)),
        }
