"""Turns of a conversation: who may speak when, and that something is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.data.formats.format import Message, Record, described, whole

ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
"""The word for a role -> the role."""


def turns(
    record: Record, field: str, who: str = "role", what: str = "content", roles: Mapping[str, str] = ROLES
) -> list[Message]:
    """The messages in a field.

    Args:
        record: a row.
        field: where its messages are.
        who: key of a message's role.
        what: key of its text.
        roles: the words for roles.

    Raises:
        UserError: no list of objects with `who` and `what`, an unknown role, or a question or system text that is blank.
    """
    value = record.fields.get(field)
    if not isinstance(value, list) or not value:
        missing = f"no such field (its fields: {', '.join(record.fields) or 'none'})"
        found = described(value) if field in record.fields else missing
        raise record.wrong(field, found, f"a list of objects with '{who}' and '{what}'")
    return [_turn(record, f"{field}[{at}]", turn, who, what, roles) for at, turn in enumerate(value)]


def _turn(record: Record, at: str, turn: Any, who: str, what: str, roles: Mapping[str, str]) -> Message:
    if not isinstance(turn, dict):
        raise record.wrong(at, described(turn), f"an object with '{who}' and '{what}'")
    for key in (who, what):
        if not isinstance(turn.get(key), str):
            found = described(turn[key]) if key in turn else f"no such key (its keys: {', '.join(map(str, turn))})"
            raise record.wrong(f"{at}.{key}", found, "text")
    role = roles.get(turn[who])
    if role is None:
        raise record.wrong(f"{at}.{who}", f"the unknown role {turn[who]!r}", f"one of {', '.join(roles)}")
    if role != "assistant" and not turn[what].strip():
        raise record.wrong(f"{at}.{what}", "empty text", f"what the {role} says")
    return {"role": role, "content": whole(turn[what])}


def in_order(record: Record, field: str, messages: list[Message]) -> list[Message]:
    """The messages, if a system text comes first at most, and then user and assistant in turn.

    Raises:
        UserError: another order, named at the first message that is out of it.
    """
    offset = int(messages[0]["role"] == "system")
    for at, message in enumerate(messages[offset:]):
        expected = ("user", "assistant")[at % 2]
        if message["role"] != expected:
            after = messages[at + offset - 1]["role"] if at + offset else "nothing"
            found = f"role {message['role']} after {after}"
            raise record.wrong(f"{field}[{at + offset}]", found, f"{expected} (system first, then user and assistant)")
    if len(messages) == offset:
        raise record.wrong(field, "a system message alone", "a user message after it")
    return messages


def conversation(record: Record, field: str) -> list[Message]:
    """The messages of a field, in order."""
    return in_order(record, field, turns(record, field))


def prompt(record: Record, field: str) -> list[Message]:
    """A question: text, or messages that end with the user's.

    Raises:
        UserError: neither.
    """
    if not isinstance(record.fields.get(field), list):
        return [{"role": "user", "content": record.text(field)}]
    asked = conversation(record, field)
    if asked[-1]["role"] != "user":
        raise record.wrong(
            f"{field}[{len(asked) - 1}]", "role assistant at the end", "a prompt that ends with the user"
        )
    return asked


def answer(record: Record, field: str) -> list[Message]:
    """An answer: text that may be blank (that is counted, not refused), or messages from the assistant's to the assistant's.

    Raises:
        UserError: neither.
    """
    if not isinstance(record.fields.get(field), list):
        return [{"role": "assistant", "content": record.text(field, blank=True)}]
    said = turns(record, field)
    for at, message in enumerate(said):
        expected = ("assistant", "user")[at % 2]
        if message["role"] != expected:
            raise record.wrong(
                f"{field}[{at}]", f"role {message['role']}", f"{expected} (an answer begins with assistant)"
            )
    if said[-1]["role"] != "assistant":
        raise record.wrong(
            f"{field}[{len(said) - 1}]", "role user at the end", "an answer that ends with the assistant"
        )
    return said
