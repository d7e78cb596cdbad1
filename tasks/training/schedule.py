"""Learning-rate schedules: a fraction of the peak for every step."""

from __future__ import annotations

import math

from pydantic import Field, NonNegativeInt

from tasks.core.schema import Section


class Schedule(Section):
    """How the learning rate moves over the run."""

    shape: str = Field(default="cosine", pattern="^(cosine|wsd|constant)$")
    """cosine (arXiv:1608.03983), wsd: warm-up, stable, decay (arXiv:2404.06395), or constant."""
    warmup_steps: NonNegativeInt = 30
    """Steps of linear warm-up."""
    decay_fraction: float = Field(default=0.3, ge=0, le=1)
    """Share of the steps that wsd spends decaying; the other shapes do not use it."""
    min_ratio: float = Field(default=0.1, ge=0, le=1)
    """Final learning rate as a share of the peak."""

    def ratio(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at `step` (0-based) of `steps`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.shape == "constant":
            return 1.0
        progress = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        if self.shape == "cosine":
            return self.min_ratio + (1 - self.min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
        start = 1 - self.decay_fraction
        if progress < start or self.decay_fraction == 0:
            return 1.0
        return 1 - (1 - self.min_ratio) * (progress - start) / self.decay_fraction
