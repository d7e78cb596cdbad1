"""What every technique that drops training documents can do."""

from __future__ import annotations

from tasks.core.errors import UserError
from tasks.core.schema import Technique
from tasks.data.spill import Spill


class Filter(Technique):
    """A technique that drops training documents. Its fields are what params.yaml may say."""

    def drops(self, spill: Spill) -> dict[str, str]:
        """Path -> why, of the training documents to drop; `spill` may be gone through as often as needed.

        Raises:
            UserError: a parameter that doesn't fit the corpus.
        """
        raise NotImplementedError


def kept_best(scores: dict[str, float], keep_fraction: float, why: str) -> dict[str, str]:
    """Path -> why, of all but the `keep_fraction` of documents with the highest scores; at least one stays."""
    best = sorted(scores, key=lambda path: (-scores[path], path))
    return dict.fromkeys(best[max(1, round(len(best) * keep_fraction)) :], why)


def refuse_nothing_left(name: str, kept: int) -> None:
    """Raises UserError where no training document is left."""
    if kept < 1:
        raise UserError(
            f"{name}: every training document would be dropped", f"loosen {name}, or set its method to none"
        )
