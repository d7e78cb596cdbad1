"""Every document stays."""

from __future__ import annotations

from tasks.data.spill import Spill
from tasks.data.technique import Filter


class Nothing(Filter):
    """Keep every document, from wherever it comes (identity)."""

    def drops(self, spill: Spill) -> dict[str, str]:
        """Nothing."""
        return {}
