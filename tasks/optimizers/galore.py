"""Adam in the subspace of the gradient's largest singular vectors."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.optimizers.shared.low_rank import LowRank
from tasks.optimizers.shared.ruled import Place, State


class GaLore(LowRank):
    """Adam on the gradient's projection to its largest singular vectors (arXiv:2403.03507)."""

    scale: float = Field(default=0.25, gt=0)
    """Factor of the projected step (the paper's alpha)."""

    def projected(self, wide: Any, state: State, place: Place) -> Any:
        """Down to (rank, n), Adam, and up again; moments stay when the subspace changes, as in the paper."""
        import torch

        if self.period(state)[1] == 0:
            left = torch.linalg.svd(wide, full_matrices=False).U
            state["projection"] = left[..., : self.rank].mT.contiguous()
        down = state["projection"]
        return self.scale * (down.mT @ self.adam(down @ wide, state))

    def beside(self, stack: int, short: int) -> int:
        """The projection."""
        return 4 * stack * self.rank * short
