"""Chats as token ids with the loss on the answers only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.core.errors import UserError
from tasks.models.chat import IGNORED, Example, batch_indices, encode, padded


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


def tensors(examples: list[Example], device: Any) -> tuple[Any, Any]:
    """Inputs and labels (B, T) of a batch, padded on the right to its longest chat or a little more."""
    import torch

    length = padded(max(len(example.labels) for example in examples))
    inputs = torch.zeros(len(examples), length, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        inputs[row, : len(example.labels)] = torch.tensor(example.ids[:-1])
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return inputs.to(device), labels.to(device)


def batch(examples: list[Example], step: int, batch_size: int, seed: int, device: Any) -> tuple[Any, Any]:
    """The batch of a step: every chat once per epoch, in an order drawn anew for each."""
    return tensors([examples[index] for index in batch_indices(len(examples), step, batch_size, seed)], device)
