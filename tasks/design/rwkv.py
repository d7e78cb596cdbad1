"""Recurrent network that trains like a transformer: no attention, a state of five vectors per layer."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from tasks.design.family import Family


class Rwkv(Family):
    """Recurrence of decayed averages with gates, in the place of attention: RWKV-4 (arXiv:2305.13048)."""

    model_type: ClassVar[str] = "rwkv"
    architecture: ClassVar[str] = "RwkvForCausalLM"

    hidden_size: PositiveInt = 256
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 896
    """Width of the channel mixing, the feed-forward layer of this family."""
    num_hidden_layers: int = Field(default=6, ge=2)
    """Number of layers; at least 2, because decays start out spread over the depth."""
    context_length: PositiveInt = 1024
    """Longest context that later stages may ask for; the recurrence itself has no limit."""
    tie_word_embeddings: bool = True
    """Share the input embedding with the output layer."""

    def config_fields(self) -> dict[str, Any]:
        """As the class has them.

        `rescale_every` 0 turns a precaution for float16 off, which halves weights in place on the way to evaluation: a
        model saved then would be halved again when it is loaded.
        """
        return {**super().config_fields(), "rescale_every": 0}

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Depth near width / 48, channel mixing of 3.5 times the width."""
        return {
            "hidden_size": width,
            "intermediate_size": round(width * 3.5),
            "num_hidden_layers": max(2, round(width / 48)),
        }
