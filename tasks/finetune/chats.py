"""Chats as token ids with the loss on the answers only."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.core.errors import UserError
from tasks.models.chat import chat_text
from tasks.training.loss import IGNORED

PADDED_TO = 32
"""Batches are padded to multiples of this many tokens."""


@dataclass(frozen=True)
class Example:
    """A chat: `ids` (T + 1) and for each of the T predictions its label, or -100 outside an answer."""

    ids: list[int]
    labels: list[int]


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
        if all(label == IGNORED for label in example.labels):
            chats.without_answer += 1
        elif len(example.labels) > context_length:
            chats.too_long += 1
        else:
            chats.examples.append(example)
    return chats


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
        if not (before.startswith(done) and after.startswith(before)):
            raise UserError(
                "finetune: this chat template rewrites earlier turns, so answers can't be told from questions",
                "use a tokenizer whose chat template only adds to what was said",
            )
        asked, said = before[len(done) :], after[len(before) :]
        for text, learned in ((asked, False), (said, answer and bool(message["content"].strip()))):
            tokens = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
            ids += tokens
            answers += [learned] * len(tokens)
        done = after
    labels = [token if learned else IGNORED for token, learned in zip(ids[1:], answers[1:], strict=True)]
    return Example(ids, labels)


def tensors(examples: list[Example], device: Any) -> tuple[Any, Any]:
    """Inputs and labels (B, T) of a batch, padded on the right to its longest chat or a little more."""
    import torch

    # a few lengths instead of hundreds: the CPU's matrix library keeps what it prepares for each
    length = -(-max(len(example.labels) for example in examples) // PADDED_TO) * PADDED_TO
    inputs = torch.zeros(len(examples), length, dtype=torch.long)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        inputs[row, : len(example.labels)] = torch.tensor(example.ids[:-1])
        labels[row, : len(example.labels)] = torch.tensor(example.labels)
    return inputs.to(device), labels.to(device)


def batch(examples: list[Example], step: int, batch_size: int, seed: int, device: Any) -> tuple[Any, Any]:
    """The batch of a step: every chat once per epoch, in an order drawn anew for each."""
    import numpy as np

    chosen, orders = [], {}
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, offset = divmod(position, len(examples))
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(len(examples))
        chosen.append(examples[int(orders[epoch][offset])])
    return tensors(chosen, device)
