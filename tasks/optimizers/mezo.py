"""Training without a backward pass: the slope along random noise, from two losses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from tasks.optimizers.technique import Named, OptimizerTechnique, Shape, decay_groups


class MeZO(OptimizerTechnique):
    """Two forward passes on either side of the weights, along noise made again from its seed (arXiv:2305.17333).

    No gradient, no state, no activations: a step needs little more than a forward pass. Its step is the noise times the
    slope along it, whose mean is the gradient; it takes many more steps, and a learning rate of about a thousandth of
    AdamW's. The slope's mean square is the gradient's, so it is what is shown as norm, and `max_grad_norm` limits it.
    """

    elementwise = False
    zeroth_order = True

    zo_eps: float = Field(default=1e-3, gt=0)
    """How far to either side the weights are moved, as a multiple of the noise."""

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """A `ZerothOrder`."""
        from tasks.optimizers.shared.zeroth_order import ZerothOrder

        return ZerothOrder(decay_groups(named, weight_decay), learning_rate, self.zo_eps)

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """None."""
        return 0
