"""Ternary weights: every linear layer computes with -1, 0 and 1, and is trained through the rounding."""

from __future__ import annotations

from typing import Any, ClassVar

from tasks.design.decoder import Decoder

QUANTIZATION: dict[str, Any] = {
    "quant_method": "bitnet",
    "linear_class": "autobitlinear",
    "quantization_mode": "online",
    "modules_to_not_convert": ["lm_head"],
}
"""What tells transformers that the saved weights are to be rounded whenever they are used."""


class BitNet(Decoder):
    """Llama of ternary weights and 8-bit activations, squared ReLU, two norms more (arXiv:2402.17764)."""

    model_type: ClassVar[str] = "bitnet"
    architecture: ClassVar[str] = "BitNetForCausalLM"

    def config_fields(self) -> dict[str, Any]:
        """As the class has them; without the quantization, transformers would build a dense model of this name."""
        return {**super().config_fields(), "quantization_config": QUANTIZATION}
