"""LoRA: a frozen weight W learns an update B A of rank r, so that W x becomes W x + (lora_alpha / r) B A x."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from tasks.accounting.lora import LEFT_OUT
from tasks.core.schema import Technique


class Lora(Technique):
    """Low-rank update of frozen weights (arXiv:2106.09685)."""

    r: PositiveInt = 8
    """Rank of the update; the adapter's size grows linearly with it."""
    lora_alpha: PositiveFloat = 16
    """Scale of the update: it is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input while training."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers to adapt, or `all-linear`: every linear module but the output layer. Experts are none."""

    def apply(self, model: Any) -> Any:
        """Return `model` as a `peft.PeftModel` whose only trainable weights are the adapter's.

        Raises:
            ValueError: no layer has such a name, or the layers are ternary: the merged sum would be rounded away.
        """
        from peft import LoraConfig, get_peft_model

        if any(type(module).__name__ == "TernaryLinear" for module in model.modules()):
            raise ValueError("an update merged into ternary weights is rounded away; set finetune.method to full")
        fields = self.model_dump() | {"target_modules": self._targets(model)}
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **fields))

    def _targets(self, model: Any) -> str | list[str]:
        """`all-linear` spelled out where peft would take it for something else.

        Raises:
            ValueError: a layer is named that can't be adapted in this architecture.
        """
        import torch

        left_out = LEFT_OUT.get(model.config.model_type)
        if left_out is None:
            return self.target_modules
        output = model.get_output_embeddings()
        names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]
        if self.target_modules == "all-linear":
            return [name for name in names if name.rpartition(".")[2] not in left_out]
        if wrong := sorted({name.rpartition(".")[2] for name in names if self._names(name)} & left_out):
            raise ValueError(f"{', '.join(wrong)} can't be adapted in {model.config.model_type}")
        return self.target_modules

    def _names(self, module: str) -> bool:
        """Whether `target_modules` means that module, as peft matches it."""
        if isinstance(self.target_modules, str):
            return re.fullmatch(self.target_modules, module) is not None
        return any(f".{module}".endswith(f".{name}") for name in self.target_modules)
