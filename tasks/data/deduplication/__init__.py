"""Ways to drop documents that are there twice."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.data.deduplication.exact import Exact
from tasks.data.deduplication.minhash import Minhash
from tasks.data.deduplication.none import Nothing


class Deduplication(Choice):
    """Documents that say the same."""

    method: str = "exact"
    """Which repeated documents are dropped."""
    none: Nothing = Nothing()
    exact: Exact = Exact()
    minhash: Minhash = Minhash()
