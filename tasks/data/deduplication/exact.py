"""Documents with the very same text."""

from __future__ import annotations

from typing import ClassVar

from tasks.data.spill import Spill
from tasks.data.technique import Filter


class Exact(Filter):
    """Keep the first of documents with the same bytes, by their SHA-256 (arXiv:2107.06499)."""

    identical: ClassVar[bool] = True

    def drops(self, spill: Spill) -> dict[str, str]:
        """Nothing more: the same text was dropped while reading."""
        return {}
