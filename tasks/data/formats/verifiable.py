"""Prompts whose answer can be checked."""

from __future__ import annotations

from tasks.data.formats.format import Format, Message, Parsed, Record, described, texts_of
from tasks.data.formats.turns import answer, conversation, prompt


class Verifiable(Format):
    """`{"prompt": "...", "answer": "..."}`, or `messages` and `answer`, or `question` where `data.format` says so."""

    name = "verifiable"
    needs = ("answer",)
    either = ("prompt", "messages")
    reads = ("completion", "question")

    def read(self, record: Record) -> Parsed:
        """The prompt and its answer; where the record also says how to get there, that is a chat beside it."""
        right, asked, said = self._answer(record), list[Message](), list[Message]()
        if record.fields.get("messages") is not None:
            asked = conversation(record, "messages")
            if asked[-1]["role"] == "assistant":
                asked, said = asked[:-1], asked[-1:]
        else:
            field = "question" if "prompt" not in record.fields and "question" in record.fields else "prompt"
            asked = prompt(record, field)
            if record.fields.get("completion") is not None:
                said = answer(record, "completion")
        rows = {"chats": {"messages": asked + said}} if said else {}
        text = texts_of(asked + (said or [{"role": "assistant", "content": right}]))
        return Parsed(text, rows | {"verifiable": {"prompt": asked, "answer": right}})

    def _answer(self, record: Record) -> str:
        given = record.fields.get("answer")
        if isinstance(given, int | float) and not isinstance(given, bool):
            return str(given)
        if "answer" in record.fields and not isinstance(given, str):
            raise record.wrong("answer", described(given), "text or a number")
        return record.text("answer", blank=True).strip()
