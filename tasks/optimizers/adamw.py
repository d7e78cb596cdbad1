"""Adam with decoupled weight decay, in torch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasks.optimizers.technique import AdamLike, Named, Shape, adam_bytes, decay_groups


class AdamW(AdamLike):
    """Adam with decoupled weight decay, fused (arXiv:1711.05101)."""

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """`torch.optim.AdamW`."""
        import torch

        groups = decay_groups(named, weight_decay)
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=self.eps, fused=True)

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """Two float32 moments per parameter, and a float32 step per tensor."""
        return sum(map(adam_bytes, shapes))
