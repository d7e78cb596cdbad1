"""Answers that were liked or not, one at a time."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record, described, texts_of
from tasks.data.formats.turns import answer, prompt

LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""Texts and numbers that stand for a truth value, as CSV has them."""


class Unpaired(Format):
    """`{"prompt": "...", "completion": "...", "label": true}`, texts or messages, as KTO takes them."""

    name = "unpaired"
    needs = ("prompt", "completion", "label")

    def read(self, record: Record) -> Parsed:
        """Prompt and completion as messages; only what was liked is text to learn."""
        given = record.fields.get("label")
        label = LABELS.get(str(given).strip().lower()) if isinstance(given, bool | int | float | str) else None
        if label is None:
            found = described(given) if "label" in record.fields else "no such field"
            raise record.wrong("label", found, "true or false")
        asked = prompt(record, "prompt")
        said = answer(record, "completion")
        row = {"prompt": asked, "completion": said, "label": label}
        return Parsed(texts_of(asked + said if label else asked), {"unpaired": row})
