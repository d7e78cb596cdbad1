"""Sequences of tokens from a memory-mapped shard, and the batch of a step, which depends on seed and step alone."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.pretrain.sampling import Sampling
from tasks.training.batch import Batch

DECK = 1024
"""Positions after which a mixture repeats; weights are rounded to this many parts."""
SHORTEST = 32
"""Lengths of sequences are multiples of this, so that few shapes occur."""
EASY_SHARE = 0.1
"""Share of the sequences, the easiest, that a curriculum begins with."""


class Shard:
    """The token ids of one split, cut into sequences of `context_length` (+ 1 for the labels).

    Raises:
        UserError: the split is shorter than one sequence.
    """

    def __init__(self, data: Path, split: str, context_length: int, device: Any) -> None:
        import numpy as np

        about = json.loads((data / "shards.json").read_text(encoding="utf-8"))
        self.data, self.split, self.groups = data, split, about.get("groups", [])
        self.ids = np.memmap(data / f"{split}.bin", dtype=about["dtype"], mode="r")
        self.context_length, self.device = context_length, device
        self.sequences = (len(self.ids) - 1) // context_length
        if self.sequences < 1:
            raise UserError(
                f"pretrain.context_length: found {context_length}; the {split} split has only {len(self.ids)} tokens",
                "lower it, or add documents",
            )

    @cached_property
    def index(self) -> Any:
        """One row per document: start (first token), group (number), difficulty (zlib-compressed bytes per byte).

        Raises:
            UserError: shards that were written without.
        """
        import numpy as np

        path = self.data / f"{self.split}.index.npy"
        if not path.exists():
            raise UserError(
                f"pretrain.sampling: {path} is not there, which says where documents begin", "run the stage data again"
            )
        return np.load(path, mmap_mode="r", allow_pickle=False)

    @cached_property
    def documents(self) -> Any:
        """The document each sequence begins in: (sequences,)."""
        import numpy as np

        starts = np.arange(self.sequences) * self.context_length
        return np.searchsorted(self.index["start"], starts, "right") - 1

    def take(self, indices: Any) -> tuple[Any, Any]:
        """Inputs and labels, each (len(indices), context_length)."""
        import numpy as np
        import torch

        length = self.context_length
        rows = np.stack([self.ids[i * length : (i + 1) * length + 1] for i in indices]).astype(np.int64)
        ids = torch.from_numpy(rows).to(self.device)
        return ids[:, :-1], ids[:, 1:]

    def document_numbers(self, indices: Any) -> Any:
        """For every input token the number of its document within its sequence, from 0: (len(indices), context_length)."""
        import numpy as np
        import torch

        places = np.asarray(indices)[:, None] * self.context_length + np.arange(self.context_length)[None]
        found = np.searchsorted(self.index["start"], places, "right")
        return torch.from_numpy(found - found[:, :1]).to(self.device)


class Batches:
    """The batch of every step of a run.

    A sequence belongs to the document it begins in: its group, its length and its difficulty.

    Args:
        shard: of the training split.
        sampling: what params.yaml says.
        batch_size: sequences of full length per step.
        steps: of the run; curricula and warm-ups are shares of them.
        seed: draws the order.

    Raises:
        UserError: an unknown or empty group, weights that are no weights, or a warm-up length that doesn't fit.
    """

    def __init__(self, shard: Shard, sampling: Sampling, batch_size: int, steps: int, seed: int) -> None:
        import numpy as np

        self.shard, self.sampling, self.batch_size, self.steps, self.seed = shard, sampling, batch_size, steps, seed
        self.lengths = self._lengths()
        self.members = [np.arange(shard.sequences)] if not sampling.mixture else self._members()
        self.deck = self._deal()
        self.orders: dict[int, tuple[int, Any]] = {}
        if sampling.curriculum != "none":
            value = self._difficulty()
            self.easiest = [members[np.argsort(value[members], kind="stable")] for members in self.members]

    def batch(self, step: int) -> Batch:
        """Inputs and labels (B, T); short sequences are full ones cut: B x T is the same at every step."""
        indices = self.indices(step)
        inputs, labels = self.shard.take(indices)
        extras = {"documents": self.shard.document_numbers(indices)} if self.sampling.document_mask else {}
        length = self.length(step)
        return Batch(
            inputs.reshape(-1, length),
            labels.reshape(-1, length),
            {name: value.reshape(-1, length) for name, value in extras.items()},
        )

    def length(self, step: int) -> int:
        """Tokens per sequence at a step: grows in equal shares of the warm-up."""
        warm = self.sampling.warmup_fraction * self.steps
        if len(self.lengths) == 1 or step >= warm:
            return self.shard.context_length
        return self.lengths[int(step / warm * (len(self.lengths) - 1))]

    def indices(self, step: int) -> list[int]:
        """The sequences of a step, by number in the shard."""
        return [self._draw(step, place) for place in range(step * self.batch_size, (step + 1) * self.batch_size)]

    def _draw(self, step: int, place: int) -> int:
        """The sequence at a place of the run: of the group the deck says, the next of its epoch or an easy one."""
        import numpy as np

        rounds, at = divmod(place, len(self.deck))
        group = int(self.deck[at])
        share = self._share(step)
        if share < 1:
            pool = self.easiest[group][: max(1, round(share * len(self.easiest[group])))]
            return int(pool[np.random.default_rng([self.seed, place, 1]).integers(len(pool))])
        before = rounds * int((self.deck == group).sum()) + int((self.deck[:at] == group).sum())
        epoch, offset = divmod(before, len(self.members[group]))
        return int(self.members[group][self._order(group, epoch)[offset]])

    def _share(self, step: int) -> float:
        """Share of the sequences, easiest first, that may come at a step (arXiv:1903.09848, square root)."""
        if self.sampling.curriculum == "none":
            return 1.0
        done: float = step / (self.sampling.curriculum_fraction * self.steps)
        return float(min(1.0, (done * (1 - EASY_SHARE**2) + EASY_SHARE**2) ** 0.5))

    def _order(self, group: int, epoch: int) -> Any:
        """A group's order in an epoch, drawn anew for each; the last is kept."""
        import numpy as np

        if self.orders.get(group, (-1, None))[0] != epoch:
            parts = [self.seed, epoch] if not self.sampling.mixture else [self.seed, epoch, group]
            self.orders[group] = (epoch, np.random.default_rng(parts).permutation(len(self.members[group])))
        return self.orders[group][1]

    def _difficulty(self) -> Any:
        import numpy as np

        if self.sampling.curriculum == "difficulty":
            return self.shard.index["difficulty"][self.shard.documents]
        ends = np.append(self.shard.index["start"][1:], len(self.shard.ids))
        return (ends - self.shard.index["start"])[self.shard.documents]

    def _lengths(self) -> list[int]:
        """The lengths sequences grow through: multiples of 32 that divide the full length."""
        full, first = self.shard.context_length, self.sampling.warmup_length
        if first is None:
            return [full]
        fit = [n for n in range(SHORTEST, full + 1, SHORTEST) if full % n == 0]
        if first not in fit:
            raise UserError(
                f"pretrain.sampling.warmup_length: found {first}; sequences of {full} tokens can be cut into "
                f"{', '.join(map(str, fit)) or 'no multiples of 32'}",
                "choose one of these, or a pretrain.context_length that is a multiple of 32",
            )
        return [n for n in fit if n >= first]

    def _members(self) -> list[Any]:
        """The sequences of every group of the mixture, in its order."""
        import numpy as np

        groups, of = self.shard.groups, self.shard.index["group"][self.shard.documents]
        there = [name for number, name in enumerate(groups) if (of == number).any()]
        for name, weight in self.sampling.mixture.items():
            if name not in there:
                known = ", ".join(there[:40]) + (f" and {len(there) - 40} more" if len(there) > 40 else "")
                raise UserError(
                    f"pretrain.sampling.mixture: no training sequence begins in group '{name}'", f"groups: {known}"
                )
            if not weight > 0:
                raise UserError(
                    f"pretrain.sampling.mixture: found {weight} for '{name}'; a weight is above 0",
                    "leave the group out",
                )
        return [np.flatnonzero(of == groups.index(name)) for name in self.sampling.mixture]

    def _deal(self) -> Any:
        """Which group comes at which place, over and over: (DECK,), each as often as its weight says; shuffled."""
        import numpy as np

        weights = np.array([*self.sampling.mixture.values()] or [1.0])
        if len(weights) == 1:
            return np.zeros(1, dtype=np.int64)
        if len(weights) > DECK:
            raise UserError(f"pretrain.sampling.mixture: found {len(weights)} groups; at most {DECK} can be weighed")
        exact = weights / weights.sum() * (DECK - len(weights))  # every group has one place at least
        counts = np.floor(exact).astype(np.int64) + 1
        counts[np.argsort(-(exact % 1), kind="stable")[: DECK - counts.sum()]] += 1
        return np.random.default_rng([self.seed, 2]).permutation(np.repeat(np.arange(len(weights)), counts))
