"""Pairs of a better and a worse answer."""

from __future__ import annotations

from itertools import takewhile

from tasks.data.formats.format import Format, Message, Parsed, Record, texts_of
from tasks.data.formats.turns import answer, conversation, prompt


class Preference(Format):
    """`{"prompt": "...", "chosen": "...", "rejected": "..."}`, texts or messages; `chosen` and `rejected` may hold the prompt."""

    name = "preference"
    needs = ("chosen", "rejected")
    reads = ("prompt",)

    def read(self, record: Record) -> Parsed:
        """The prompt as messages, and both answers."""
        if all(_whole_conversation(record, field) for field in ("chosen", "rejected")):
            asked, chosen, rejected = _apart(record)
        else:
            asked = prompt(record, "prompt")
            chosen, rejected = answer(record, "chosen"), answer(record, "rejected")
        row = {"prompt": asked, "chosen": chosen, "rejected": rejected}
        return Parsed(texts_of(asked + chosen), {"preferences": row})


def _whole_conversation(record: Record, field: str) -> bool:
    value = record.fields.get(field)
    begins = value[0] if isinstance(value, list) and value else None
    return isinstance(begins, dict) and begins.get("role") != "assistant"


def _apart(record: Record) -> tuple[list[Message], list[Message], list[Message]]:
    """Two conversations that begin alike: what they share is the prompt."""
    chosen, rejected = conversation(record, "chosen"), conversation(record, "rejected")
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))))
    while shared and (chosen[shared - 1]["role"] != "user" or shared in (len(chosen), len(rejected))):
        shared -= 1
    if not shared:
        raise record.wrong("rejected", "another beginning than 'chosen' has", "the same prompt before both answers")
    asked = record.fields.get("prompt")
    if isinstance(asked, str) and asked.strip() not in texts_of(chosen[:shared]):
        raise record.wrong("prompt", "another text than 'chosen' begins with", "the question both answers answer")
    return chosen[:shared], chosen[shared:], rejected[shared:]
