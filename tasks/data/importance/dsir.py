"""Importance resampling towards a target, by hashed n-grams."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field, PositiveInt

from tasks.core.errors import UserError
from tasks.data.documents import hash_of
from tasks.data.ngrams import hashes
from tasks.data.spill import Spill
from tasks.data.technique import Filter, kept_best


class Dsir(Filter):
    """Resample training documents by the importance of their hashed n-grams for a target (arXiv:2302.03169)."""

    target: str = ""
    """Folder, file or glob below `data.source` whose training documents are what the others should be like."""
    keep_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of the training documents that stay."""
    buckets: PositiveInt = 10_000
    """Counters that words and pairs of words are hashed to."""

    def drops(self, spill: Spill) -> dict[str, str]:
        """All but the documents with the largest log-importance plus Gumbel noise, which is sampling without replacement.

        Raises:
            UserError: no target, or one that no training document is part of.
        """
        import numpy as np

        target, raw = np.ones(self.buckets), np.ones(self.buckets)
        found = 0
        for _, document in spill.rows("train"):
            counts = self._counts(document.text)
            raw += counts
            if self.wanted(document.path):
                target += counts
                found += 1
        if not found:
            raise UserError(
                f"data.importance.dsir.target: found '{self.target}', which no training document's path matches",
                "name a folder, a file or a glob below data.source, e.g. 'json' or '*.md'",
            )
        ratio = np.log(target / target.sum()) - np.log(raw / raw.sum())
        scores = {d.path: float(self._counts(d.text) @ ratio) + _gumbel(d.path) for _, d in spill.rows("train")}
        return kept_best(scores, self.keep_fraction, "importance")

    def wanted(self, path: str) -> bool:
        """Whether a document is part of the target."""
        folder = self.target.rstrip("/")
        return bool(folder) and (
            path == folder or path.startswith((f"{folder}/", f"{folder}#")) or fnmatchcase(path, folder)
        )

    def _counts(self, text: str) -> Any:
        import numpy as np

        slots = np.concatenate([hashes(text, 1), hashes(text, 2)]) % np.uint64(self.buckets)
        return np.bincount(slots.astype(np.int64), minlength=self.buckets)


def _gumbel(path: str) -> float:
    """Gumbel noise that is the same for the same path."""
    import math

    uniform = (int(hash_of(f"gumbel {path}")[:12], 16) + 0.5) / 16**12
    return -math.log(-math.log(uniform))
