"""What every kind of raw input has in common."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from tasks.core.schema import Technique


class Maker(Technique):
    """A raw input that is fetched or made."""

    def identity(self) -> dict[str, Any]:
        """What tells one such input from another."""
        return self.model_dump(mode="json")

    @abstractmethod
    def make(self, out: Path) -> None:
        """Write it into the empty folder `out`."""
