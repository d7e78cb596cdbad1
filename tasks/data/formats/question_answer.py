"""A question and its answer."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record, texts_of


class QuestionAnswer(Format):
    """`{"question": "...", "answer": "..."}`."""

    name = "question_answer"
    needs = ("question", "answer")

    def read(self, record: Record) -> Parsed:
        """The chat of both."""
        messages = [
            {"role": "user", "content": record.text("question")},
            {"role": "assistant", "content": record.text("answer", blank=True)},
        ]
        return Parsed(texts_of(messages), {"chats": {"messages": messages}})
