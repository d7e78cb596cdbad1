"""Quality by rules of thumb: length, symbols, compressibility, repeated lines."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from pydantic import Field, NonNegativeInt, PositiveInt

from tasks.data.spill import Spill
from tasks.data.technique import Filter


class Rules(Filter):
    """Drop training documents by length, symbols, compression ratio and repeated lines (arXiv:2112.11446, appendix A)."""

    min_characters: NonNegativeInt = 50
    """Shorter documents are dropped."""
    max_characters: PositiveInt = 1_000_000
    """Longer documents are dropped."""
    max_symbol_ratio: float = Field(default=0.5, gt=0, le=1)
    """Largest share of characters that are neither letters, digits nor white space."""
    min_compression_ratio: float = Field(default=0.1, ge=0, le=1)
    """Smallest zlib-compressed bytes per byte: below it a document repeats itself."""
    max_compression_ratio: float = Field(default=0.9, gt=0)
    """Largest zlib-compressed bytes per byte: above it a document is noise."""
    max_duplicate_lines: float = Field(default=0.5, gt=0, le=1)
    """Largest share of lines (blank ones apart) that were in the document before."""

    def drops(self, spill: Spill) -> dict[str, str]:
        """The first rule each document breaks."""
        found = {}
        for _, document in spill.rows("train"):
            broken = next(self.broken(document.text), "")
            if broken:
                found[document.path] = broken
        return found

    def broken(self, text: str) -> Iterator[str]:
        """The names of the rules `text` breaks."""
        if len(text) < self.min_characters:
            yield "min_characters"
        if len(text) > self.max_characters:
            yield "max_characters"
        if sum(not (c.isalnum() or c.isspace()) for c in text) > self.max_symbol_ratio * len(text):
            yield "max_symbol_ratio"
        content = text.encode()
        ratio = len(zlib.compress(content)) / len(content)
        if ratio < self.min_compression_ratio:
            yield "min_compression_ratio"
        if ratio > self.max_compression_ratio:
            yield "max_compression_ratio"
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        if lines and 1 - len(set(lines)) / len(lines) > self.max_duplicate_lines:
            yield "max_duplicate_lines"
