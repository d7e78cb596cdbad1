"""Chats as token ids with the loss on the answers only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.finetune.lesson import Rows
from tasks.models.chat import encode, need_template


def read(path: Path, tokenizer: Any, context_length: int) -> Rows:
    """Every chat of a JSON Lines file that fits into `context_length` tokens.

    Raises:
        UserError: the tokenizer has no chat template.
    """
    need_template(tokenizer)
    chats = Rows()
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
