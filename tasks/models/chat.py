"""A chat as the text and the tokens a model sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.core.errors import UserError

UNDATED = datetime(2024, 1, 1, tzinfo=UTC)
"""The date that templates are told: some write today's, and tomorrow's run must see the same tokens."""


def chat_text(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """The tokenizer's chat template filled in.

    Raises:
        jinja2.TemplateError: the template refuses these messages (two questions in a row, a system message).
    """
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, strftime_now=UNDATED.strftime
    )
    return str(text)


def need_template(tokenizer: Any) -> None:
    """Refuse a tokenizer that can't write chats.

    Raises:
        UserError: it has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "finetune: the tokenizer has no chat template, so chats can't be written as text",
            "use data.tokenizer.method train (it brings ChatML), or a tokenizer with a chat template",
        )


def only_adds(before: str, after: str) -> None:
    """Refuse a template by which what was said first is not the beginning of what is said with more.

    Raises:
        UserError: it isn't.
    """
    if not after.startswith(before):
        raise UserError(
            "finetune: this chat template rewrites earlier turns, so answers can't be told from questions",
            "use a tokenizer whose chat template only adds to what was said",
        )


IGNORED = -100
"""Label of a position where there is nothing to learn."""

PADDED_TO = 32
"""Batches are padded to multiples of this many tokens."""


@dataclass(frozen=True)
class Example:
    """A chat: `ids` (T + 1) and for each of the T predictions its label, or -100 outside an answer."""

    ids: list[int]
    labels: list[int]

    @property
    def labelled(self) -> int:
        """Tokens of answers."""
        return sum(label != IGNORED for label in self.labels)


def encode(messages: list[dict[str, str]], tokenizer: Any) -> Example:
    """Tokens of a chat; every assistant turn, with the token that ends it, is an answer.

    A turn is tokenized on its own, as it will be when the model generates it after its prompt.
    """
    ids: list[int] = []
    answers: list[bool] = []
    done = ""
    for index, message in enumerate(messages):
        answer = message["role"] == "assistant"
        turns = [messages[:index], messages[: index + 1]]
        before = chat_text(tokenizer, turns[0], True) if answer and index else done
        after = chat_text(tokenizer, turns[1], False)
        only_adds(done, before)
        only_adds(before, after)
        asked, said = before[len(done) :], after[len(before) :]
        for text, learned in ((asked, False), (said, answer and bool(message["content"].strip()))):
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            ids += tokens
            answers += [learned] * len(tokens)
        done = after
    labels = [token if learned else IGNORED for token, learned in zip(ids[1:], answers[1:], strict=True)]
    return Example(ids, labels)


def sizes_of(conversations: list[list[dict[str, str]]], tokenizer: Any) -> list[int]:
    """Positions and labelled positions of every conversation, one after the other.

    Raises:
        jinja2.TemplateError: the chat template refuses one of them.
        UserError: the template rewrites earlier turns.
    """
    examples = [encode(messages, tokenizer) for messages in conversations]
    return [size for example in examples for size in (len(example.labels), example.labelled)]


def padded(longest: int) -> int:
    """Length of a batch with a chat of `longest` tokens.

    A few lengths instead of hundreds: the CPU's matrix library keeps what it prepares for each.
    """
    return -(-longest // PADDED_TO) * PADDED_TO
