"""Repeated documents stay."""

from __future__ import annotations

from typing import ClassVar

from tasks.data.spill import Spill
from tasks.data.technique import Filter


class Nothing(Filter):
    """Keep every document, the same text twice included (identity)."""

    identical: ClassVar[bool] = False

    def drops(self, spill: Spill) -> dict[str, str]:
        """Nothing."""
        return {}
