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
        counts, left = self._counters(), self.sample_bytes
        for text in spill.texts("train"):
            content = text.encode()[:left]
            self._count(counts, content)
            left -= len(content)
            if left <= 0:
                break
        scores = {d.path: -self._bits(counts, d.text.encode()) for _, d in spill.rows("train")}
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

    def _bits(self, counts: list[Any], content: bytes) -> float:
        """Bits per byte: each order's estimate is mixed with the next shorter one's."""
        import numpy as np

        slots = self._slots(content)
        chance = np.full(len(content), 1 / 256)
        for order, (context, gram) in enumerate(pairwise(range(self.order + 1))):
            # a context is the n-gram of one order less that ended a byte earlier
            before = np.concatenate([counts[context][slots[order][:1]], counts[context][slots[order][:-1]]])
            seen = np.minimum(
                counts[gram][slots[gram]], before
            )  # two n-grams in one slot must not exceed their context
            chance = (seen + STRENGTH * chance) / (before + STRENGTH)
        return float(-np.log2(chance).mean())
