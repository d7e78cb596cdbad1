"""Plain gradient descent in the backward pass: no gradient outlives its tensor's turn."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasks.optimizers.technique import Named, OptimizerTechnique, Shape, decay_groups


class Lomo(OptimizerTechnique):
    """Gradient descent that updates a tensor as soon as its gradient is there, and drops it (arXiv:2306.09782).

    No state, and gradients of one tensor at a time. The global norm is known only when everything has moved, so
    `max_grad_norm` limits every tensor's norm by itself, and the norm that is shown is that of all, before the limit.
    """

    elementwise = False
    in_backward = True

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """An `InBackward`."""
        from tasks.optimizers.shared.in_backward import InBackward

        return InBackward(decay_groups(named, weight_decay), learning_rate)

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """None."""
        return 0
