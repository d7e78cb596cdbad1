"""Which chats make a step, and in which rows they lie: the same for the training and for its prediction. No torch.

A step is always `batch_size` chats, packed or not, so that equal steps have seen equal data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tasks.models.chat import padded

ROW = 2048
"""Tokens that a row of packed chats holds at most, unless a single chat is longer."""

MEGA = 50
"""Steps whose chats are sorted by length at a time, as in transformers' `get_length_grouped_indices`."""


@dataclass(frozen=True)
class Rows:
    """Where the chats of a batch lie.

    Attributes:
        chats: for every row the numbers of the chats in it, one after the other.
        length: tokens of a row, padding included.
        packed: whether a row may hold several chats.
    """

    chats: tuple[tuple[int, ...], ...]
    length: int
    packed: bool

    def documents(self, lengths: Sequence[int]) -> list[list[int]]:
        """Tokens of what lies in every row, the padding behind it as one more; the whole row where none are packed."""
        if not self.packed:
            return [[self.length] for _ in self.chats]
        inside = [[lengths[chat] for chat in row] for row in self.chats]
        return [[*row, rest] if (rest := self.length - sum(row)) else row for row in inside]


@dataclass(frozen=True)
class Dealer:
    """Deals chats.

    Attributes:
        lengths: tokens of every chat.
        batch_size: chats per step.
        seed: draws the order.
        packing: whether chats share rows.
        group_by_length: whether those of a step are of like length.
        parts: a step's batch has at least as many rows.
    """

    lengths: tuple[int, ...]
    batch_size: int
    seed: int
    packing: bool = False
    group_by_length: bool = False
    parts: int = 1

    def step(self, step: int) -> Rows:
        """The batch of a step."""
        return self.rows(self.numbers(step))

    def numbers(self, step: int) -> list[int]:
        """The chats of a step: every one once per epoch, in an order drawn anew for each."""
        chosen = []
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, offset = divmod(position, len(self.lengths))
            chosen.append(self._order(epoch)[offset])
        return chosen

    def in_turn(self) -> Iterator[Rows]:
        """All chats in the order they have, in batches: for a validation."""
        for at in range(0, len(self.lengths), self.batch_size):
            yield self.rows(list(range(at, min(at + self.batch_size, len(self.lengths)))))

    def rows(self, chats: list[int]) -> Rows:
        """The rows that those chats are put into."""
        if not self.packing:
            return Rows(tuple((chat,) for chat in chats), padded(max(self.lengths[chat] for chat in chats)), False)
        packed = pack([self.lengths[chat] for chat in chats], self.parts)
        fullest = max(sum(self.lengths[chats[place]] for place in row) for row in packed)
        return Rows(tuple(tuple(chats[place] for place in row) for row in packed), padded(fullest), True)

    def _order(self, epoch: int) -> tuple[int, ...]:
        first = -epoch * len(self.lengths) % self.batch_size
        return _order(
            self.lengths if self.group_by_length else len(self.lengths), first, self.batch_size, self.seed, epoch
        )


def pack(lengths: Sequence[int], least: int = 1) -> list[list[int]]:
    """Places of `lengths` in as few rows as hold them, and not fewer than `least`; rows are as equal as can be.

    The longest go first, each to the row that is emptiest. A row has one at least.
    """
    most = max(ROW, *lengths)
    longest = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    count = min(len(lengths), max(least, -(-sum(lengths) // most)))
    while True:
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for place in longest:
            emptiest = min(range(count), key=filled.__getitem__)
            rows[emptiest].append(place)
            filled[emptiest] += lengths[place]
        if max(filled) <= most or count == len(lengths):
            return [sorted(row) for row in rows]
        count += 1


@lru_cache(maxsize=8)
def _order(chats: tuple[int, ...] | int, first: int, batch_size: int, seed: int, epoch: int) -> tuple[int, ...]:
    """An epoch's order of so many chats; where their lengths are told, steps of like lengths in it, in any order.

    Args:
        chats: their lengths, or how many there are.
        first: of the epoch's chats, how many belong to a step that the epoch before began.
        batch_size: chats per step.
        seed: with `epoch`, draws the order.
        epoch: number of it.
    """
    import numpy as np

    draw = np.random.default_rng([seed, epoch])
    order = draw.permutation(chats if isinstance(chats, int) else len(chats))
    if isinstance(chats, int):
        return tuple(map(int, order))
    found = list(order[:first])
    for at in range(first, len(order), MEGA * batch_size):
        some = order[at : at + MEGA * batch_size]
        some = some[np.argsort(-np.asarray(chats)[some], kind="stable")]
        whole = len(some) // batch_size
        steps = some[: whole * batch_size].reshape(whole, batch_size)
        found += [*steps[draw.permutation(whole)].flatten(), *some[whole * batch_size :]]
    return tuple(map(int, found))
