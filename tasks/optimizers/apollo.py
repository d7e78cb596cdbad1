"""The gradient itself, scaled as Adam would scale a random projection of it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.optimizers.shared.low_rank import LowRank
from tasks.optimizers.shared.ruled import Place, State

GROWTH = 1.01
"""A step's norm is at most this times the last one's (the paper's gamma, section 4.2)."""


class Apollo(LowRank):
    """The gradient, scaled by Adam's view of a random projection (arXiv:2412.05270).

    APOLLO-Mini is `rank: 1`, `scale_type: tensor`, `scale: 128`.
    """

    scale_type: str = Field(default="channel", pattern="^(channel|tensor)$")
    """Whether every channel of the longer side has a factor of its own, or a matrix one."""

    def projected(self, wide: Any, state: State, place: Place) -> Any:
        """The random matrix is made anew from its seed in every step, so that it costs no memory."""
        low = self._projection(wide, place.number, self.period(state)[0]) @ wide
        adapted = self.adam(low, state)
        over = -2 if self.scale_type == "channel" else (-2, -1)
        factor = adapted.norm(dim=over, keepdim=True) / low.norm(dim=over, keepdim=True).clamp_min(1e-8)
        return self._limited(wide * factor, state) * self.scale**0.5

    def _projection(self, wide: Any, tensor: int, number: int) -> Any:
        """Normal numbers (rank, m) of variance 1/rank, the same for the same tensor and refresh."""
        import torch

        generator = torch.Generator().manual_seed(1_000_003 * number + tensor)
        made = torch.randn(self.rank, wide.shape[-2], generator=generator) * self.rank**-0.5
        return made.to(wide.device)

    def _limited(self, step: Any, state: State) -> Any:
        """A step of norm zero limits nothing: else none could ever follow it."""
        import torch

        norm = step.norm()
        last = state.get("norm", norm)
        state["norm"] = torch.where(last > 0, norm.minimum(GROWTH * last), norm)
        return step * (state["norm"] / norm.clamp_min(torch.finfo(norm.dtype).tiny))

    def beside(self, stack: int, short: int) -> int:
        """The last step's norm."""
        return 4
