"""Adam on a low-rank picture of a matrix's gradient: what GaLore and APOLLO share."""

from __future__ import annotations

from math import prod
from typing import Any

from pydantic import Field, PositiveInt

from tasks.optimizers.shared.ruled import Place, Ruled, State, adam_direction
from tasks.optimizers.technique import AdamLike, Shape, adam_bytes


class LowRank(Ruled, AdamLike):
    """Moments of the gradient's projection, for matrices of blocks whose shorter side is above `rank`; AdamW for the rest."""

    elementwise = False

    rank: PositiveInt = 64
    """Rows of the projection."""
    update_proj_gap: PositiveInt = 200
    """Steps between new projections."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of the projected step."""

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """AdamW's, or that of `projected`."""
        if not (place.hidden and self._narrow(tuple(gradient.shape))):
            return adam_direction(gradient, state, (self.beta1, self.beta2), self.eps)
        tall = gradient.shape[-2] > gradient.shape[-1]
        wide = gradient.mT if tall else gradient
        found = self.projected(wide, state, place)
        return found.mT if tall else found

    def projected(self, wide: Any, state: State, place: Place) -> Any:
        """Direction for a gradient (..., m, n) with m not above n, from moments (..., rank, n)."""
        raise NotImplementedError

    def adam(self, low: Any, state: State) -> Any:
        """AdamW's direction for a projected gradient."""
        return adam_direction(low, state, (self.beta1, self.beta2), self.eps)

    def period(self, state: State) -> tuple[int, int]:
        """Number of this step's projection, and steps it has served, both from 0."""
        return divmod(int(state["step"]) if "step" in state else 0, self.update_proj_gap)

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """Two float32 moments of the projection, a step, and what else is kept (`beside`)."""
        if not (inside and self._narrow(shape)):
            return adam_bytes(shape)
        stack = prod(shape[:-2])
        return adam_bytes((stack, self.rank, max(shape[-2:]))) + self.beside(stack, min(shape[-2:]))

    def beside(self, stack: int, short: int) -> int:
        """Bytes kept beside the moments, for `stack` matrices of a shorter side `short`."""
        raise NotImplementedError

    def _narrow(self, shape: Shape) -> bool:
        return min(shape[-2:]) > self.rank
