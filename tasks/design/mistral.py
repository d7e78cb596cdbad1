"""Dense decoder whose every layer sees only the last tokens."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from tasks.design.decoder import Decoder, check_window


class Mistral(Decoder):
    """Dense decoder with a sliding window in all layers: the cache stops growing (arXiv:2310.06825)."""

    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"

    sliding_window: int = Field(default=256, ge=2)
    """Tokens a token sees in a layer, itself included; through the layers it still learns of older ones."""

    @model_validator(mode="after")
    def _slides(self) -> Self:
        check_window(self.sliding_window, self.max_position_embeddings)
        return self
