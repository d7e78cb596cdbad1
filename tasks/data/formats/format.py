"""What a format of records is: the fields it is recognised by, and what is made of a record."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks.core.errors import UserError

Message = dict[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """Fields of one row of a file.

    Attributes:
        fields: name -> value.
        where: file and row, as a person looks them up.
        text_field: the field that holds plain text (`data.text_field`).
    """

    fields: dict[str, Any]
    where: str
    text_field: str = "text"

    def wrong(self, field: str, found: str, expected: str) -> UserError:
        """The mistake in words."""
        return UserError(f"{self.where}, field '{field}': found {found}; expected {expected}")

    def text(self, field: str, blank: bool = False) -> str:
        """The text in a field; `blank`: it may be empty.

        Raises:
            UserError: the field is missing, null, no text, or blank.
        """
        expected = "text" if blank else "text that isn't empty"
        if field not in self.fields:
            raise self.wrong(field, f"no such field (its fields: {', '.join(self.fields) or 'none'})", expected)
        value = self.fields[field]
        if not isinstance(value, str) or not (blank or value.strip()):
            raise self.wrong(field, described(value), expected)
        return whole(value)

    def optional(self, field: str) -> str:
        """The text in a field that may be missing, null or empty."""
        return "" if self.fields.get(field) is None else self.text(field, blank=True)


@dataclass(frozen=True)
class Parsed:
    """What a record is: its text, and a row for every kind of training it serves (see `tasks.data.kinds`)."""

    text: str
    rows: dict[str, Row] | None = None


class Format:
    """A way to write a record."""

    name: ClassVar[str]
    """What `data.format` calls it."""
    needs: ClassVar[tuple[str, ...]]
    """Fields a record of this format has."""
    either: ClassVar[tuple[str, ...]] = ()
    """It has at least one of these beside them, if there are any."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that are read where they are there."""

    def fits(self, names: set[str], text_field: str) -> bool:
        """Whether a record with these fields is of this format."""
        return set(self.needs) <= names and (not self.either or bool(names & set(self.either)))

    @abstractmethod
    def read(self, record: Record) -> Parsed:
        """What the record says.

        Raises:
            UserError: file, row and field, what was found, what is expected.
        """


def whole(text: str) -> str:
    """Half a character (a lone surrogate of JSON's escapes) can't be written as UTF-8: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def described(value: Any) -> str:
    """A value of a record as an error names it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        shown = value if len(value) <= 40 else f"{value[:40]}..."
        return repr(shown) if value.strip() else "empty text"
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    kind = names.get(type(value), type(value).__name__)
    return f"an empty {kind.partition(' ')[2]}" if value in ([], {}) else f"{kind} ({str(value)[:40]})"


def texts_of(messages: list[Message]) -> str:
    """What was said, a blank line between turns."""
    return "\n\n".join(message["content"] for message in messages)
