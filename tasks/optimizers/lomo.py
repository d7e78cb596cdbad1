"""Plain gradient descent in the backward pass: no gradient outlives its tensor's turn."""

from __future__ import annotations

from typing import Any

from tasks.optimizers.shared.moving import MovesInBackward
from tasks.optimizers.shared.ruled import Place, State
from tasks.optimizers.technique import Shape


class Lomo(MovesInBackward):
    """Gradient descent that updates a tensor as soon as its gradient is there, and drops it (arXiv:2306.09782).

    No state, and gradients of one tensor at a time. The global norm is known only when everything has moved, so
    `max_grad_norm` limits every tensor's norm by itself, and the norm that is shown is that of all, before the limit.
    """

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """The gradient."""
        return gradient

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """None."""
        return 0
