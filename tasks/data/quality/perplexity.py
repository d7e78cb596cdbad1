"""Quality by the perplexity of a small model: n-grams of bytes, counted in the training text itself."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from pydantic import Field, PositiveInt

from tasks.data.spill import Spill
from tasks.data.technique import Filter, kept_best

SLOTS = 1 << 20
"""Counters per order: n-grams share them by hash, 4 MB each."""
STRENGTH = 4.0
"""How many observations the shorter context counts for."""


class Perplexity(Filter):
    """Keep the training documents a small model finds likeliest (arXiv:1911.00359).

    The model is an interpolated n-gram model of bytes trained on a sample of the training documents, not the Kneser-Ney
    model of words of the paper: it needs no other corpus and no tokenizer.
    """

    keep_fraction: float = Field(default=0.9, gt=0, le=1)
    """Share of the training documents that stay."""
    order: int = Field(default=4, ge=1, le=6)
    """Bytes of an n-gram."""
    sample_bytes: PositiveInt = 4_000_000
    """Bytes of training text the model is trained on."""

    def drops(self, spill: Spill) -> dict[str, str]:
        """The documents with the most bits per byte."""
        counts, left, sampled = self._counters(), self.sample_bytes, set[str]()
        for _, document in spill.rows("train"):
            if left <= 0:
                break
            content = document.text.encode()
            self._count(counts, content)
            sampled.add(document.path)
            left -= len(content)
        scores = {d.path: -self._bits(counts, d.text.encode(), d.path in sampled) for _, d in spill.rows("train")}
        return kept_best(scores, self.keep_fraction, "perplexity")

    def _counters(self) -> list[Any]:
        import numpy as np

        return [np.zeros(SLOTS, dtype=np.uint32) for _ in range(self.order + 1)]

    def _slots(self, content: bytes) -> list[Any]:
        """Per order 0 to `order`, the slot of the n-gram that ends at each byte, (bytes,); zeros stand before the text."""
        import numpy as np

        padded = np.frombuffer(bytes(self.order) + content, dtype=np.uint8).astype(np.uint64)
        size = len(content)
        key, slots = np.zeros(size, dtype=np.uint64), [np.zeros(size, dtype=np.int64)]
        for back in range(self.order):
            start = self.order - back
            key = (key * np.uint64(257) + padded[start : start + size] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            slots.append((key >> np.uint64(44)).astype(np.int64))
        return slots

    def _count(self, counts: list[Any], content: bytes) -> None:
        import numpy as np

        for table, slots in zip(counts, self._slots(content), strict=True):
            table += np.bincount(slots, minlength=SLOTS).astype(np.uint32)

    def _bits(self, counts: list[Any], content: bytes, sampled: bool) -> float:
        """Bits per byte: each order's estimate is mixed with the next shorter one's.

        A document of the sample is scored without what was counted in it, or the model would know it by heart.
        """
        import numpy as np

        slots = self._slots(content)
        seen = [self._seen(table, slot, sampled) for table, slot in zip(counts, slots, strict=True)]
        chance = np.full(len(content), 1 / 256)
        for context, gram in pairwise(range(self.order + 1)):
            # a context is the n-gram of one order less that ended a byte earlier
            before = np.concatenate([seen[context][:1], seen[context][:-1]])
            among = np.minimum(seen[gram], before)  # two n-grams in one slot must not exceed their context
            chance = (among + STRENGTH * chance) / (before + STRENGTH)
        return float(-np.log2(chance).mean())

    def _seen(self, table: Any, slots: Any, sampled: bool) -> Any:
        """How often each slot was counted, in other documents."""
        import numpy as np

        if not sampled:
            return table[slots].astype(np.float64)
        _, inverse, own = np.unique(slots, return_inverse=True, return_counts=True)
        return table[slots].astype(np.float64) - own[inverse]
