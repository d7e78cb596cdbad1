"""Chats as token ids with the loss on the answers only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.core.errors import UserError
from tasks.models.chat import Example, encode


@dataclass
class Chats:
    """The examples of one split and what was left out, with why."""

    examples: list[Example] = field(default_factory=list)
    too_long: int = 0
    without_answer: int = 0
    refused: int = 0


def read(path: Path, tokenizer: Any, context_length: int) -> Chats:
    """Every chat of a JSON Lines file that fits into `context_length` tokens.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "finetune: the tokenizer has no chat template, so chats can't be written as text",
            "use data.tokenizer.method train (it brings ChatML), or a tokenizer with a chat template",
        )
    chats = Chats()
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line)["messages"] for line in file]
    for messages in rows:
        try:
            example = encode(messages, tokenizer)
        except TemplateError:
            chats.refused += 1
            continue
        if not example.labelled:
            chats.without_answer += 1
        elif len(example.labels) > context_length:
            chats.too_long += 1
        else:
            chats.examples.append(example)
    return chats
