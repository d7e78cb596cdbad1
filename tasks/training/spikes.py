"""Steps that go wrong: a loss that is no number, or one far above its neighbours."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveInt

from tasks.core.schema import Section


class Spikes(Section):
    """What is done about a loss that is no number or far above its neighbours: back to the last checkpoint, without the batch."""

    deviations: float | None = Field(default=8.0, gt=0)
    """A loss this many standard deviations above the mean of the last `window` is a spike (a deviation counts as at least 1% of the mean); null: only what is no number."""
    window: PositiveInt = 50
    """Steps whose losses are its neighbours; before there are that many, only what is no number is a spike."""
    max_skipped: NonNegativeInt = 3
    """Batches that may be skipped; one more stops training."""
