"""LoftQ: QLoRA whose A and B begin as the best low-rank repair of what quantizing lost."""

from __future__ import annotations

from typing import Any

from tasks.finetune.shared.quantized import Quantized
from tasks.finetune.technique import Plan, Tuning


class LoftQ(Quantized):
    """Low-rank update of a 4-bit base, from what quantizing took (arXiv:2310.08659).

    One iteration of the paper's: the base stays the one bitsandbytes makes, on which the adapter therefore loads. Before
    the first step every adapted weight is nearer to the original than the quantized one, as near as rank r can bring it.
    """

    decomposes = True

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """LoRA that begins with the largest singular parts of original minus quantized weight.

        peft's own (`replace_lora_weights_loftq`) works on a graphics card alone, and leaves the scale of B A out.
        """
        import torch
        from peft.tuners.lora import Linear4bit
        from peft.utils.integrations import dequantize_module_weight

        from tasks.models.load import load_model

        tuning, original = super().begin(base, plan), load_model(plan.base, "float32")
        with torch.no_grad():
            for name, module in tuning.model.base_model.model.named_modules():
                if isinstance(module, Linear4bit):
                    lost = original.get_submodule(name).weight - dequantize_module_weight(module.base_layer).float()
                    left, sizes, right = torch.linalg.svd(lost, full_matrices=False)
                    root = (sizes[: self.r] / module.scaling["default"]).sqrt()
                    module.lora_A["default"].weight.copy_(root[:, None] * right[: self.r])
                    module.lora_B["default"].weight.copy_(left[:, : self.r] * root)
        return tuning
