"""AdamW that averages its iterates instead of lowering its learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from tasks.optimizers.technique import AdamLike, Named, Shape, decay_groups, elements


class ScheduleFree(AdamLike):
    """AdamW without a schedule: gradients between iterates and their average (arXiv:2405.15682).

    The learning rate must stay constant after its warm-up (`pretrain.schedule.shape: constant`). The model is the average
    where it is judged or kept (`eval()`), the point between where it learns (`train()`).
    """

    schedule_free = True

    beta1: float = Field(default=0.9, gt=0, lt=1)
    """How far gradients are taken on the way from the iterate to the average."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """Averaging coefficient of the gradient's square; the paper's default, the average needs it calm."""
    r: float = Field(default=0.0, ge=0)
    """Iterates weigh in the average by their step to this power."""
    weight_lr_power: float = Field(default=2.0, ge=0)
    """Iterates weigh by the largest learning rate so far to this power: those of the warm-up less."""

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """An `Averaged`."""
        from tasks.optimizers.shared.averaged import Averaged

        return Averaged(decay_groups(named, weight_decay), learning_rate, self)

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """The iterate and a second moment per number; step, largest rate and sum of weights per tensor; float32."""
        found = list(shapes)
        return 8 * elements(found) + 12 * len(found)
