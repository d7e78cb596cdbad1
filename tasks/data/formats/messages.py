"""Chats as messages, the way chat templates take them."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record, texts_of
from tasks.data.formats.turns import conversation


class Messages(Format):
    """`{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}`."""

    name = "messages"
    needs = ("messages",)

    def read(self, record: Record) -> Parsed:
        """The chat as it is."""
        messages = conversation(record, "messages")
        return Parsed(texts_of(messages), {"chats": {"messages": messages}})
