"""The kinds of rows that finetuning takes: where each is written, what it asks, what makes it worthless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.data.formats.format import Message, Row, texts_of

NO_ANSWER, EMPTY, ALIKE = "no answer", "empty answer", "both answers the same"


@dataclass(frozen=True)
class Kind:
    """A kind of row.

    Attributes:
        folder: below instructions/.
        metric: its count in the ledger.
        lacks: why such a row teaches nothing, or "".
        conversations: the conversations in it that a chat template must be able to write, each ending as it is trained on.
    """

    folder: str
    metric: str
    lacks: Callable[[Row], str]
    conversations: Callable[[Row], list[list[Message]]]


def _chat(row: Row) -> str:
    answers = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    return "" if any(map(str.strip, answers)) else EMPTY if answers else NO_ANSWER


def _preference(row: Row) -> str:
    if not all(row[name][-1]["content"].strip() for name in ("chosen", "rejected")):
        return EMPTY
    return ALIKE if row["chosen"] == row["rejected"] else ""


def _unpaired(row: Row) -> str:
    return "" if row["completion"][-1]["content"].strip() else EMPTY


def _verifiable(row: Row) -> str:
    return "" if row["answer"] else EMPTY


CHATS = "chats"
"""The kind that text is made into where no records are given."""

KINDS = {
    CHATS: Kind("", "instructions", _chat, lambda row: [row["messages"]]),
    "preferences": Kind(
        "preferences",
        "preferences",
        _preference,
        lambda row: [row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]],
    ),
    "unpaired": Kind("unpaired", "unpaired", _unpaired, lambda row: [row["prompt"] + row["completion"]]),
    "verifiable": Kind("verifiable", "verifiable", _verifiable, lambda row: [row["prompt"]]),
}
"""The registry, by the name rows have in `tasks.data.formats`."""


def asked(rows: dict[str, Row]) -> str:
    """What a record asks, by which it is like another: everything before the last answer but the system's text."""
    row = next(iter(rows.values()))
    prompt: list[Message] = row["prompt"] if "prompt" in row else row["messages"]
    last = max((at for at, message in enumerate(prompt) if message["role"] == "assistant"), default=len(prompt))
    before = prompt if "prompt" in row else prompt[:last]
    return texts_of([message for message in before if message["role"] != "system"])
