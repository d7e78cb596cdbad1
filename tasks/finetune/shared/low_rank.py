"""LoRA, as everything that grew from it shares it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from tasks.accounting import lora
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.shared.targets import ALL, refused, targets
from tasks.finetune.technique import Plan, Shape
from tasks.models import Config


class LowRank(PeftTechnique):
    """A product of two thin matrices beside a frozen one."""

    r: PositiveInt = 8
    """Rank of the update; the adapter's size grows linearly with it."""
    lora_alpha: PositiveFloat = 16
    """Scale of the update: it is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input while training."""
    target_modules: str | list[str] = ALL
    """Names of the layers to adapt, or `all-linear`: every linear module but the output layer. Experts are none."""

    variant: ClassVar[dict[str, Any]] = {}

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.LoraConfig`."""
        from peft import LoraConfig

        fields = self.model_dump() | {"target_modules": targets(base, self.target_modules)}
        return LoraConfig(task_type="CAUSAL_LM", **fields, **self.variant)

    def adapted_layers(self, config: Config) -> list[lora.Layer]:
        """Those with an update."""
        return lora.adapted(config, self.target_modules)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A (r, inputs) and B (outputs, r) of every adapted layer."""
        chosen = self.adapted_layers(config)
        return [shape for layer in chosen for shape in ((self.r, layer.inputs), (layer.outputs, self.r))]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's, and the adapter's."""
        whole = lora.training_flops_per_token(config, context, self.r, self.target_modules)
        return whole - 2 * lora.head_flops(config) * (1 - labelled)

    def refuse(self, config: Config) -> str:
        """Layers that aren't there, or can't be adapted."""
        return refused(config, f"finetune.{self.method}.target_modules", self.target_modules)
