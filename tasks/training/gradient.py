"""The gradient of a step: its batch in parts, in the step's arithmetic, added up, shared, clipped."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tasks.core.errors import UserError
from tasks.core.measure import Metrics, counted
from tasks.models.device import autocast
from tasks.objectives.technique import Objective
from tasks.training.batch import Batch
from tasks.training.precision import LossScale, unscale
from tasks.training.settings import Settings
from tasks.training.world import World

OUTSIDE = "outside_flops"
"""FLOPs of what the objective computed beside the graph, all workers together."""


class Gradient:
    """Computes gradients of batches.

    Args:
        module: a `Graph`, or what wraps one.
        trained: the tensors that are trained.
        settings: of the run.
        world: the workers.
        optimizer: of the run; asked only if it moves tensors in the backward pass, or finds its own slope.
        objective: what `module` learns; it prepares a part before it is computed.
        stage: whose parameters an error names.
    """

    def __init__(
        self,
        module: Any,
        trained: list[Any],
        settings: Settings,
        world: World,
        optimizer: Any = None,
        objective: Objective | None = None,
        stage: str = "pretrain",
    ) -> None:
        self.module, self.trained, self.settings, self.world = module, trained, settings, world
        self.optimizer = optimizer
        self.moving = optimizer if settings.optimizer.in_backward else None
        self.objective, self.stage = objective or Objective(), stage
        self._scaling = LossScale() if settings.precision == "fp16" else None

    def compute(self, batch: Batch) -> dict[str, float]:
        """Leave the gradient of the whole step's `batch` in the trained tensors; what the history shows, with its norm.

        An fp16 gradient that overflowed is dropped: there is none then, its norm is 0, and the optimizer has nothing to do.
        One that does so unscaled is not a number, and its norm says so.

        Raises:
            UserError: there are fewer sequences than parts.
        """
        scale = self._scaling.scale if self._scaling else 1.0
        learned = self._each(batch, lambda total, weight: self._backward(total * (scale * weight)))
        return {**learned, "grad_norm": self._norm(scale)}

    def _each(self, batch: Batch, use: Callable[[Any, float], None]) -> dict[str, float]:
        """Send the step's `batch` through in parts; what the history shows of it, over all workers.

        Args:
            batch: whole, of all workers.
            use: told a part's loss and its weight in the step's.
        """
        whole = batch.labelled
        parts = list(self.world.share(batch).parts(self.settings.gradient_accumulation_steps))
        if len(parts) < self.settings.gradient_accumulation_steps:
            raise UserError(
                f"{self.stage}.gradient_accumulation_steps: found {self.settings.gradient_accumulation_steps}; a worker's "
                f"share of a step has {len(parts)} sequences",
                f"lower it, or raise {self.stage}.batch_size",
            )
        shown: dict[str, Any] = {}
        for number, part in enumerate(parts, 1):
            share = part.labelled / whole if whole else 0.0
            part = self.objective.prepare(part)
            with self.world.syncing(self.module, number == len(parts)):
                with autocast(self.settings.precision):
                    total, values = self.module(part.inputs, part.labels, part.extras)
                use(total, self.world.weight(part.labelled, whole))
            for name, value in values.items():
                shown[name] = shown.get(name, 0.0) + value * share
        if self.objective.outside:
            shown[OUTSIDE] = self.objective.spent()
        return self.world.total({name: float(value) for name, value in shown.items()})

    def rehearse(self, graph: Any, batch: Batch) -> None:
        """A gradient of `graph` for whoever watches its operators; nothing moves."""
        total, _ = graph(batch.inputs, batch.labels, batch.extras)
        total.backward()

    def _backward(self, total: Any) -> None:
        if self.moving is None:
            total.backward()
            return
        with self.moving.moving(self.settings.max_grad_norm):
            total.backward()

    def _norm(self, scale: float) -> float:
        """The gradient's norm before it is clipped; an optimizer that has moved already knows it alone."""
        if self.moving is not None:
            return float(self.moving.grad_norm)
        if self._scaling is None:
            return self.world.clip(self.trained, self.settings.max_grad_norm)
        unscale(self.trained, scale)
        norm = self.world.clip(self.trained, self.settings.max_grad_norm)
        overflowed = not math.isfinite(norm)
        if not overflowed or self._scaling.least:
            self._scaling.update(False)
            return norm
        self._scaling.update(True)
        for parameter in self.trained:
            parameter.grad = None
        return 0.0

    def metrics(self) -> Metrics:
        """Steps an overflow cost, where losses are scaled."""
        if self._scaling is None:
            return {}
        return {
            "overflowed_steps": counted(self._scaling.dropped, f"the loss is scaled by {self._scaling.scale:g} now")
        }

    def state(self) -> dict[str, float]:
        """What a resumed run needs beside weights and optimizer."""
        return self._scaling.state() if self._scaling else {}

    def load(self, values: dict[str, float]) -> None:
        """Go on from `state()`."""
        if self._scaling and values:
            self._scaling.load(values)
