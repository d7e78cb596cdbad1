"""Rows of prompts and answers as token ids: the same tokens that a chat of them is trained on and asked with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from tasks.core.errors import UserError
from tasks.finetune.lesson import Given, Rows
from tasks.models.chat import chat_text, need_template, only_adds

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answered:
    """Token ids of a prompt, and of an answer with the token that ends it."""

    prompt: list[int]
    answer: list[int]

    @property
    def ids(self) -> list[int]:
        """Both, one after the other."""
        return self.prompt + self.answer


@dataclass(frozen=True)
class Kind:
    """A kind of rows.

    Attributes:
        folder: below `instructions`.
        name: for a person, in the plural.
        fields: of a record it is made of, for a person.
        make: an example of a row; raises TemplateError where the chat template refuses it.
        size: tokens of an example's longest sequence, and of its shortest answer.
    """

    folder: str
    name: str
    fields: str
    make: Callable[[dict[str, Any], Any], Any]
    size: Callable[[Any], tuple[int, int]]


def read(given: Given, kind: Kind, method: str) -> tuple[Rows, Rows]:
    """Every row to train on, and to validate with, that fits into `context_length` tokens.

    Raises:
        UserError: there are none, or the tokenizer has no chat template.
    """
    need_template(given.tokenizer)
    train, held = (_split(given, kind, split) for split in ("train", "validation"))
    if train.examples:
        return train, held
    found = f"found {method}; it learns from {kind.name}"
    give = f"give the data stage records with {kind.fields}, or set finetune.objective.method to sft, which learns from chats"
    if not (train.too_long or train.without_answer or train.refused):
        raise UserError(
            f"finetune.objective.method: {found}, and {given.data / 'instructions' / kind.folder} holds none", give
        )
    raise UserError(
        f"finetune.objective.method: {found}, and none can be used ({train.too_long} longer than finetune.context_length "
        f"{given.context_length} tokens, {train.without_answer} without an answer, {train.refused} refused by the chat template)",
        f"raise finetune.context_length, or {give}",
    )


def _split(given: Given, kind: Kind, split: str) -> Rows:
    path, rows = given.data / "instructions" / kind.folder / f"{split}.jsonl", Rows()
    if not path.exists():
        return rows
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                example = kind.make(json.loads(line), given.tokenizer)
            except TemplateError:
                rows.refused += 1
                continue
            longest, shortest = kind.size(example)
            if not shortest:
                rows.without_answer += 1
            elif longest > given.context_length:
                rows.too_long += 1
            else:
                rows.examples.append(example)
    return rows


def answered(prompt: Messages, answer: Messages, tokenizer: Any) -> Answered:
    """Tokens of a prompt and its answer, each tokenized on its own, as when the model writes the one after the other.

    An answer without text has no tokens.

    Raises:
        UserError: the chat template rewrites the prompt once there is an answer.
    """
    before, after = chat_text(tokenizer, prompt, True), chat_text(tokenizer, [*prompt, *answer], False)
    only_adds(before, after)
    said = after[len(before) :] if any(message["content"].strip() for message in answer) else ""
    return Answered(
        *(tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in (before, said))
    )


def pair(row: dict[str, Any], tokenizer: Any) -> tuple[Answered, Answered]:
    """The chosen and the rejected answer of a row."""
    chosen, rejected = (answered(row["prompt"], row[name], tokenizer) for name in ("chosen", "rejected"))
    return chosen, rejected


PAIRS = Kind(
    "preferences",
    "pairs of a better and a worse answer",
    "prompt, chosen and rejected",
    pair,
    lambda pair: (max(len(one.ids) for one in pair), min(len(one.answer) for one in pair)),
)
"""What DPO and ORPO learn from."""
