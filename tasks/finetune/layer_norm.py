"""LayerNorm tuning: the weights of the norms are all that is trained."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from tasks.accounting.lora import Layer, frozen_flops_per_token, head_flops
from tasks.accounting.norms import NORMS, norms
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config


class LayerNorm(PeftTechnique):
    """Train the weights of the norms alone (arXiv:2312.11420)."""

    target_modules: list[str] | None = None
    """Names of the norms to train, of those over the model's width; null: all of them."""

    frozen: ClassVar[bool] = False

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """A `PeftModel` of which only the norms are trained."""
        with warnings.catch_warnings():  # peft asks for the sizes of a layer, and norms aren't among those it knows
            warnings.filterwarnings("ignore", message="Unsupported layer type")
            return super().begin(base, plan)

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.LNTuningConfig`."""
        from peft import LNTuningConfig

        chosen = self._chosen(base.config.to_dict())
        return LNTuningConfig(task_type="CAUSAL_LM", target_modules=sorted({layer.last for layer in chosen}))

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A vector as wide as the model for each norm."""
        return [(layer.inputs,) for layer in self._chosen(config)]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's, and of each norm a gradient, a product that is summed over."""
        whole = frozen_flops_per_token(config, context, self._chosen(config), lambda layer, _: 2.0 * layer.inputs)
        return whole - 2 * head_flops(config) * (1 - labelled)

    def refuse(self, config: Config) -> str:
        """Norms that aren't there, or of an architecture whose norms aren't known; quantized weights."""
        kind = config.get("model_type", "llama")
        if not (known := norms(config)):
            return (
                f"finetune.method: found {self.method}; the norms of {kind} aren't known by name (of {', '.join(sorted(NORMS))} "
                "they are): choose another method"
            )
        names = {layer.last for layer in known}
        if self.target_modules is not None and (not self.target_modules or set(self.target_modules) - names):
            return (
                f"finetune.{self.method}.target_modules: found {self.target_modules}; this model's norms are "
                f"{', '.join(sorted(names))}: name some of them, or set it to null for all"
            )
        return super().refuse(config)

    def _chosen(self, config: Config) -> list[Layer]:
        return [layer for layer in norms(config) if self.target_modules is None or layer.last in self.target_modules]
