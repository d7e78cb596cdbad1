"""Low-rank methods on a base that bitsandbytes keeps in a few bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tasks import accounting
from tasks.accounting.lora import linear_layers
from tasks.finetune.shared.adapter import PeftTuning
from tasks.finetune.shared.low_rank import LowRank
from tasks.finetune.technique import Plan, Tuning
from tasks.models import Config
from tasks.models.quantized import BLOCK_IN, BLOCK_OUT, left_plain, quantization

BLOCK, SCALES = 64, 256
"""Weights that share a scale, and scales that share one where they are quantized too."""


class Quantized(LowRank):
    """Layers of the blocks in 4 bits, everything else and the products in a type this machine multiplies."""

    plain = False

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Codes of the 4-bit weights: NormalFloat, or 4-bit floats."""
    bnb_4bit_use_double_quant: bool = True
    """Quantize the blocks' scales too: about 0.37 bits per weight less."""

    @property
    def width(self) -> int:
        """Bits of a quantized weight."""
        return 4

    def settings(self, dtype: str) -> dict[str, Any]:
        """What the base's `quantization_config` says of it, products being computed in `dtype`."""
        names = ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
        return {"load_in_4bit": True, "bnb_4bit_compute_dtype": dtype} | {name: getattr(self, name) for name in names}

    def load(self, folder: Path) -> Any:
        """The base, quantized while it is loaded unless it is already."""
        from transformers import BitsAndBytesConfig

        from tasks.models.device import native_bf16
        from tasks.models.load import read_config
        from tasks.models.notices import drop_notices_of_missing_kernels
        from tasks.models.quantized import load_bits, load_quantized, trainable

        drop_notices_of_missing_kernels()
        config, dtype = read_config(folder), "bfloat16" if native_bf16() else "float32"
        if quantization(config):
            return load_bits(folder)
        made = load_quantized(folder, BitsAndBytesConfig(**self.settings(dtype)), dtype, self._plain(config))
        return trainable(made, dtype)

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """LoRA on the quantized layers."""
        return _QuantizedTuning(super().begin(base, plan).model, self, plan)

    def base_bytes(self, config: Config, stored: int, half: bool) -> int:
        """Codes and scales of the quantized layers, the rest in the type of the products."""
        skip = set(self._plain(config))
        done = [layer for layer in linear_layers(config)[:-1] if layer.name not in skip]
        weights = sum(layer.inputs * layer.outputs for layer in done)
        rest = (accounting.parameters(config) - weights) * (2 if half else 4)
        if self.width == 8:
            return rest + weights + sum(4 * layer.outputs for layer in done)
        scale = 1 + 4 / SCALES if self.bnb_4bit_use_double_quant else 4
        return rest + int(weights / 2 + weights / BLOCK * scale)

    def refuse(self, config: Config) -> str:
        """As LoRA; and a model of which no layer can be quantized."""
        layers = linear_layers(config)[:-1]
        if why := super().refuse(config):
            return why
        if layers and len(self._plain(config)) == len(layers):
            return (
                f"finetune.method: found {self.method}; no linear layer of this model has inputs in multiples of {BLOCK_IN} and "
                f"outputs of {BLOCK_OUT}, as 4-bit kernels need: choose such sizes in design, or finetune.method: lora"
            )
        return ""

    def _plain(self, config: Config) -> list[str]:
        layers = linear_layers(config)[:-1]
        return left_plain([(layer.name, layer.inputs, layer.outputs) for layer in layers], self.width)


class _QuantizedTuning(PeftTuning):
    """Merges into the base as it is dequantized: what was trained on, and not what the base was before."""

    def __init__(self, model: Any, technique: Quantized, plan: Plan) -> None:
        super().__init__(model, merges=True)
        self._technique, self._plan = technique, plan

    def merged(self) -> Any | None:
        """The dequantized base in float32, with the adapter in its weights."""
        from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

        from tasks.models.quantized import dequantized

        learned, folder = get_peft_model_state_dict(self.model), self._plan.base
        self.model = None  # makes room
        base = dequantized(self._technique.load(folder))
        whole = get_peft_model(base, self._technique.peft_config(base, self._plan))
        set_peft_model_state_dict(whole, learned)
        return whole.merge_and_unload()
