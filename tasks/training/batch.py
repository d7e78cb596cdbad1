"""A batch of training: ids, labels, and whatever else an objective or a mask needs, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tasks.models.chat import IGNORED


@dataclass(frozen=True)
class Batch:
    """One step's sequences.

    Attributes:
        inputs: token ids (B, T).
        labels: ids to predict (B, T), -100 where there is none.
        extras: more tensors with first size B, by name: `documents` (B, T) numbers the documents of a packed sequence.
    """

    inputs: Any
    labels: Any
    extras: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, made: Any) -> Batch:
        """`made` itself, or a batch of a pair (inputs, labels)."""
        return made if isinstance(made, cls) else cls(*made)

    @property
    def labelled(self) -> int:
        """Positions with a label."""
        return int((self.labels != IGNORED).sum())

    def rows(self, start: int, end: int) -> Batch:
        """Rows `start` up to `end`."""
        extras = {name: value[start:end] for name, value in self.extras.items()}
        return Batch(self.inputs[start:end], self.labels[start:end], extras)

    def parts(self, count: int) -> Iterator[Batch]:
        """The batch in `count` parts of consecutive rows, as equal as can be; none is empty."""
        size = len(self.inputs)
        edges = [size * number // count for number in range(count + 1)]
        for start, end in pairwise(edges):
            if end > start:
                yield self.rows(start, end)
