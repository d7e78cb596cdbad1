"""The formats of records, one class in one file each; a record is recognised by the fields it has."""

from __future__ import annotations

from typing import Literal, get_args

from tasks.core.errors import UserError
from tasks.data.formats.alpaca import Alpaca
from tasks.data.formats.format import Format, Record
from tasks.data.formats.messages import Messages
from tasks.data.formats.preference import Preference
from tasks.data.formats.prompt_completion import PromptCompletion
from tasks.data.formats.question_answer import QuestionAnswer
from tasks.data.formats.sharegpt import ShareGpt
from tasks.data.formats.text import Text
from tasks.data.formats.unpaired import Unpaired
from tasks.data.formats.verifiable import Verifiable

FormatName = Literal[
    "auto",
    "text",
    "messages",
    "prompt_completion",
    "alpaca",
    "sharegpt",
    "question_answer",
    "preference",
    "unpaired",
    "verifiable",
]

TABLE: tuple[Format, ...] = (
    Preference(),
    Verifiable(),
    Unpaired(),
    PromptCompletion(),
    Messages(),
    ShareGpt(),
    Alpaca(),
    QuestionAnswer(),
    Text(),
)
"""The registry, in the order in which a record is held against it: who needs more comes first."""

FORMATS = {made.name: made for made in TABLE}
assert {"auto", *FORMATS} == set(get_args(FormatName))


def recognised(record: Record) -> Format:
    """The format of a record: by the fields that hold something, else by those it has.

    A text field that a person named (`data.text_field`) comes before everything but `messages`.

    Raises:
        UserError: a record of no known format; the error lists its fields and what would be known.
    """
    field = record.text_field
    filled = {name for name, value in record.fields.items() if value is not None}
    if field != Text.name and field in filled and "messages" not in filled:
        return FORMATS[Text.name]
    for names in (filled, set(record.fields)):
        for made in TABLE:
            if made.fits(names, field):
                return made
    known = "; ".join(f"{made.name}: {fields_of(made)}" for made in TABLE if made.needs)
    raise UserError(
        f"{record.where}: no text in field '{field}' (data.text_field), and its fields are those of no known format; "
        f"its fields: {', '.join(record.fields) or 'none'}",
        f"name the text field, or rename fields; known are {known}",
    )


def fields_of(made: Format) -> str:
    """The fields a format is recognised by, in words."""
    either = f"{' or '.join(made.either)} + " if made.either else ""
    return either + " + ".join(made.needs)


def read_fields(text_field: str) -> set[str]:
    """Every field that any format reads."""
    return {text_field}.union(*({*made.needs, *made.either, *made.reads} for made in TABLE))
