"""Rules that are followed within the backward pass."""

from __future__ import annotations

from typing import Any

from tasks.optimizers.shared.ruled import Ruled, places
from tasks.optimizers.technique import Named, decay_groups


class MovesInBackward(Ruled):
    """An optimizer by its rule, which a tensor follows as soon as its gradient is there."""

    elementwise = False
    in_backward = True

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """An `InBackward`."""
        from tasks.optimizers.shared.in_backward import InBackward

        return InBackward(decay_groups(named, weight_decay), learning_rate, self.direction, places(named))
