"""Conversations as ShareGPT has them."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record, texts_of
from tasks.data.formats.turns import ROLES, in_order, turns

WORDS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
}
"""ShareGPT's word for a role -> the role."""


class ShareGpt(Format):
    """`{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}`, `system` beside it or not."""

    name = "sharegpt"
    needs = ("conversations",)
    reads = ("system",)

    def read(self, record: Record) -> Parsed:
        """The chat; turns with `role` and `content` are taken too, as many data sets have them under this name."""
        value = record.fields.get("conversations")
        plain = isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]
        keys = ("role", "content", ROLES | WORDS) if plain else ("from", "value", WORDS)
        messages, system = turns(record, "conversations", *keys), record.optional("system")
        if system.strip() and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": system})
        messages = in_order(record, "conversations", messages)
        return Parsed(texts_of(messages), {"chats": {"messages": messages}})
