"""Which sequences a step sees, and how long they are: what params.yaml may say."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from tasks.core.schema import Section


class Sampling(Section):
    """Which sequences a step sees, in which order, and how long they are."""

    mixture: dict[str, float] = Field(default={})
    """Group of documents (top folder of the path, or file of records) -> weight; {}: every sequence once per epoch, whatever its group."""
    curriculum: str = Field(default="none", pattern="^(none|length|difficulty)$")
    """Begin with sequences of short documents, or of text that compresses well (arXiv:1903.09848)."""
    curriculum_fraction: float = Field(default=0.5, gt=0, le=1)
    """Share of the steps after which every sequence may come."""
    warmup_length: PositiveInt | None = None
    """Tokens per sequence at the start, a multiple of 32 that divides `context_length`, to which it grows (arXiv:2108.06084); null: full length."""
    warmup_fraction: float = Field(default=0.3, gt=0, le=1)
    """Share of the steps over which sequences grow."""
    document_mask: bool = False
    """Let a token see its own document alone, with positions that begin anew."""
