"""A prompt and what completes it."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record, texts_of
from tasks.data.formats.turns import answer, prompt


class PromptCompletion(Format):
    """`{"prompt": "...", "completion": "..."}`; either may be text or messages, as in trl."""

    name = "prompt_completion"
    needs = ("prompt", "completion")

    def read(self, record: Record) -> Parsed:
        """The chat of both."""
        asked = prompt(record, "prompt")
        messages = asked + answer(record, "completion")
        return Parsed(texts_of(messages), {"chats": {"messages": messages}})
