"""A Llama for devices: deep and thin."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from tasks.design.decoder import Decoder, rounded


class MobileLLM(Decoder):
    """Deep and thin Llama, shared embeddings, grouped queries; its sharing of whole blocks isn't (arXiv:2402.14905)."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"

    hidden_size: PositiveInt = 128
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 320
    """Width of the feed-forward layer."""
    num_hidden_layers: PositiveInt = 25
    """Number of decoder layers: under a billion parameters, depth is worth more than width."""

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Depth 24 + width / 96 (the paper: 30 at 576, 32 at 960), three or two queries to a key where that divides."""
        heads = width // (64 if width >= 256 else 32)
        return {
            "hidden_size": width,
            "intermediate_size": rounded(width * 8 / 3),
            "num_hidden_layers": 24 + width // 96,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // next(group for group in (3, 2, 1) if heads % group == 0),
        }
