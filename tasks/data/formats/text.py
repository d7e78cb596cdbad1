"""Plain text in one field."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record


class Text(Format):
    """`{"text": "..."}`; `data.text_field` names the field."""

    name = "text"
    needs = ()

    def fits(self, names: set[str], text_field: str) -> bool:
        """Whether the text field is there."""
        return text_field in names

    def read(self, record: Record) -> Parsed:
        """The text; a blank one is passed over later, as a blank file is."""
        return Parsed(record.text(record.text_field, blank=True))
