"""Every weight is trained: the yardstick of the adapters."""

from __future__ import annotations

from typing import Any

from tasks import accounting
from tasks.accounting.lora import head_flops
from tasks.finetune.technique import FinetuneTechnique, Plan, Shape, Tuning
from tasks.models import Config


class Full(FinetuneTechnique):
    """Train every weight (the baseline every adapter is compared with)."""

    frozen = False

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """`base` with every parameter trainable."""
        base.requires_grad_(True)
        return Tuning(base)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Those of the model."""
        return list(accounting.parameter_shapes(config))

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """Three forward passes."""
        return accounting.training_flops_per_token(config, context) - 3 * head_flops(config) * (1 - labelled)
