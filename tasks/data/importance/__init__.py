"""Ways to choose the training documents most like a target."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.data.importance.dsir import Dsir
from tasks.data.importance.none import Nothing


class Importance(Choice):
    """Training documents that matter for a purpose."""

    method: str = "none"
    """How the likeness to the target is judged."""
    none: Nothing = Nothing()
    dsir: Dsir = Dsir()
