"""Dense decoder that mixes layers with a window and layers that see everything."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from tasks.design.decoder import Decoder, check_window


class Olmo3(Decoder):
    """Dense decoder with local and global layers, norms behind each part, normed queries and keys (arXiv:2512.13961)."""

    model_type: ClassVar[str] = "olmo3"
    architecture: ClassVar[str] = "Olmo3ForCausalLM"

    sliding_window: int = Field(default=256, ge=2)
    """Tokens a token sees in a local layer, itself included."""
    sliding_window_pattern: int = Field(default=4, ge=2)
    """One of every so many layers sees everything, the last among them; in the config: `layer_types`."""

    @model_validator(mode="after")
    def _slides(self) -> Self:
        check_window(self.sliding_window, self.max_position_embeddings)
        return self

    def config_fields(self) -> dict[str, Any]:
        """The ratio becomes `layer_types`, counted from the end so that the last layer is global; both kinds of layer get the same rotary base."""
        fields = super().config_fields()
        # transformers gives a bare rope_theta to the global layers alone
        rope = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
        every = fields.pop("sliding_window_pattern")
        kinds = [
            "sliding_attention" if behind % every else "full_attention"
            for behind in reversed(range(self.num_hidden_layers))
        ]
        return {
            **fields,
            "layer_types": kinds,
            "rope_parameters": {"full_attention": rope, "sliding_attention": dict(rope)},
            # transformers' default, 1, is one of the vocabulary's tokens here, and its embedding would stay zero
            "pad_token_id": None,
        }
