"""Instructions as Stanford's Alpaca has them."""

from __future__ import annotations

from tasks.data.formats.format import Format, Parsed, Record, texts_of


class Alpaca(Format):
    """`{"instruction": "...", "input": "...", "output": "..."}`; `input` and `system` may be missing, null or empty."""

    name = "alpaca"
    needs = ("instruction", "output")
    reads = ("input", "system")

    def read(self, record: Record) -> Parsed:
        """Instruction and input are the question, with a blank line between them."""
        question, system = record.text("instruction"), record.optional("system")
        given = record.optional("input")
        messages = [{"role": "system", "content": system}] if system.strip() else []
        messages += [
            {"role": "user", "content": f"{question}\n\n{given}" if given.strip() else question},
            {"role": "assistant", "content": record.text("output", blank=True)},
        ]
        return Parsed(texts_of(messages), {"chats": {"messages": messages}})
