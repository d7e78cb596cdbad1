"""The gradient itself, with momentum."""

from __future__ import annotations

from math import prod
from typing import Any

from pydantic import Field

from tasks.optimizers.shared.ruled import Place, Ruled, State
from tasks.optimizers.technique import Shape


class Sgd(Ruled):
    """Stochastic gradient descent with momentum (doi:10.1016/0041-5553(64)90137-5)."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the last step that is kept; 0: no state at all."""
    nesterov: bool = False
    """Look ahead by one step of momentum."""

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """Sum of the gradients, older ones fading, as in `torch.optim.SGD` without dampening."""
        if not self.momentum:
            return gradient
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(self.momentum).add_(gradient)
        else:
            state["momentum_buffer"] = gradient.clone()
        buffer = state["momentum_buffer"]
        return gradient.add(buffer, alpha=self.momentum) if self.nesterov else buffer

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """One float32 per parameter, if there is momentum."""
        return 4 * prod(shape) if self.momentum else 0
