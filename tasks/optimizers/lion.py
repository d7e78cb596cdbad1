"""The sign of an average: one moment."""

from __future__ import annotations

from math import prod
from typing import Any

from pydantic import Field

from tasks.optimizers.shared.ruled import Place, Ruled, State
from tasks.optimizers.technique import Shape


class Lion(Ruled):
    """The sign of the gradient's average; wants a third to a tenth of AdamW's learning rate (arXiv:2302.06675)."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the average in the step."""
    beta2: float = Field(default=0.99, ge=0, lt=1)
    """Averaging coefficient of the gradient."""

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """Algorithm 2 of the paper."""
        import torch

        average = state.setdefault("exp_avg", torch.zeros_like(gradient))
        found = average.lerp(gradient, 1 - self.beta1).sign_()
        average.lerp_(gradient, 1 - self.beta2)
        return found

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """One float32 moment."""
        return 4 * prod(shape)
