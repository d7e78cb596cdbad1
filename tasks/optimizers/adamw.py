"""Adam with decoupled weight decay, in torch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from tasks.optimizers.technique import Named, OptimizerTechnique, Shape, decay_groups, elements


class AdamW(OptimizerTechnique):
    """Adam with decoupled weight decay, fused (arXiv:1711.05101)."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Averaging coefficient of the gradient."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Averaging coefficient of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """`torch.optim.AdamW`."""
        import torch

        groups = decay_groups(named, weight_decay)
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=self.eps, fused=True)

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """Two float32 moments per parameter, and a float32 step per tensor."""
        found = list(shapes)
        return 8 * elements(found) + 4 * len(found)
