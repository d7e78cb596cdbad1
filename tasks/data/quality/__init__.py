"""Ways to drop documents of poor quality."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.data.quality.none import Nothing
from tasks.data.quality.perplexity import Perplexity
from tasks.data.quality.rules import Rules


class Quality(Choice):
    """Training documents not worth a step."""

    method: str = "none"
    """What quality is judged by."""
    none: Nothing = Nothing()
    rules: Rules = Rules()
    perplexity: Perplexity = Perplexity()
