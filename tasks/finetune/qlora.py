"""QLoRA: LoRA on a base that is kept in 4 bits, or in 8."""

from __future__ import annotations

from typing import Any, Literal

from tasks.finetune.shared.quantized import Quantized
from tasks.models import Config
from tasks.models.quantized import quantization


class QLora(Quantized):
    """Low-rank update of a base kept in 4 or 8 bits (arXiv:2305.14314).

    Before the first step the model computes what the quantized base does. The adapter belongs to the base quantized in
    the same way; the merged model is the dequantized base with the adapter in it, in the type the base was stored in.
    """

    bits: Literal[4, 8] = 4
    """Of a weight: 4 takes `bnb_4bit_quant_type`, 8 is LLM.int8 (arXiv:2208.07339), which the 4-bit fields don't concern."""

    @property
    def width(self) -> int:
        """Bits of a quantized weight."""
        return self.bits

    def settings(self, dtype: str) -> dict[str, Any]:
        """What the base's `quantization_config` says of it."""
        return super().settings(dtype) if self.bits == 4 else {"load_in_8bit": True}

    def refuse(self, config: Config) -> str:
        """As LoRA, but a base that bitsandbytes has quantized is one to train on, if it did as the fields say."""
        found = quantization(config)
        if found.get("quant_method") != "bitsandbytes":
            return super().refuse(config)
        wanted = {name: value for name, value in self.settings("").items() if not name.endswith("dtype")}
        if wrong := [name for name, value in wanted.items() if found.get(name) != value]:
            said = ", ".join(f"{name} {found.get(name)}" for name in wrong)
            return f"finetune.qlora: the model is quantized already, with {said}: set bits and the bnb_4bit fields to what it has"
        return super().refuse({name: value for name, value in config.items() if name != "quantization_config"})
