"""What stands in a gradient's place where nothing is computed backward: a slope, from losses alone."""

from __future__ import annotations

from typing import Any

from tasks.training.batch import Batch
from tasks.training.gradient import OUTSIDE, Gradient


class Slope(Gradient):
    """Asks a zeroth-order optimizer for the slope of a batch; arguments as `Gradient` takes them."""

    def compute(self, batch: Batch) -> dict[str, float]:
        """Leave the slope in the optimizer; what the history shows, means of both losses, with the slope as norm."""
        seen: list[dict[str, float]] = []

        def loss() -> float:
            totals: list[float] = []
            seen.append(self._each(batch, lambda total, weight: totals.append(float(total) * weight)))
            return sum(totals)

        slope = self.optimizer.estimate(loss, self.settings.max_grad_norm)
        first, second = seen
        shown = {name: (first[name] + second[name]) / (1 if name == OUTSIDE else 2) for name in first}
        return {**shown, "grad_norm": abs(slope)}

    def rehearse(self, graph: Any, batch: Batch) -> None:
        """Both forward passes."""
        import torch

        with torch.no_grad():
            for _ in range(2):
                graph(batch.inputs, batch.labels, batch.extras)
