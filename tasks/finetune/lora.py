"""LoRA: a frozen weight W learns an update B A of rank r, so that W x becomes W x + (lora_alpha / r) B A x."""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

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
    """Names of the layers to adapt, or `all-linear`."""

    def apply(self, model: Any) -> Any:
        """Return `model` as a `peft.PeftModel` whose only trainable weights are the adapter's."""
        from peft import LoraConfig, get_peft_model

        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **self.model_dump()))
