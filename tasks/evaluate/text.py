"""Bits per byte: how many bits a model needs for a byte of held-out text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.evaluate import Evaluate


@dataclass(frozen=True)
class Score:
    """What scoring a text gave.

    Attributes:
        nats: summed negative log-likelihood.
        tokens: tokens scored.
        bytes: UTF-8 bytes those tokens stand for.
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte: comparable between tokenizers."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp(nats per token)."""
        return math.exp(min(self.loss, 700.0))


def read_texts(data: Path) -> list[str]:
    """The held-out texts of the data stage."""
    with (data / "heldout.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def learned_share(data: Path) -> float:
    """Share of the held-out bytes that are records like those finetuning learns from, 0 to 1."""
    with (data / "heldout.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    sizes = [(len(row["text"].encode()), row.get("record", False)) for row in rows]
    return sum(size for size, record in sizes if record) / sum(size for size, _ in sizes)


def windows(tokenizer: Any, texts: list[str], context_length: int) -> list[list[int]]:
    """Token windows of at most `context_length` + 1 ids that score every token of every text exactly once.

    A text begins with the end-of-text token (so that its first token is scored too); a window begins with the last
    token of the one before.
    """
    result = []
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for text in texts:
        ids = [start, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
        result += [ids[at : at + context_length + 1] for at in range(0, len(ids) - 1, context_length)]
    return result


def batches(rows: list[list[int]], batch_size: int) -> Iterator[list[list[int]]]:
    """Rows in batches of similar length, longest first, so that little padding is multiplied."""
    ordered = sorted(rows, key=len, reverse=True)
    for at in range(0, len(ordered), batch_size):
        yield ordered[at : at + batch_size]


def tensors(rows: list[list[int]], device: Any) -> tuple[Any, Any]:
    """Inputs and labels (B, T) of a batch of windows; positions without a label are -100."""
    import torch

    length = len(rows[0]) - 1
    inputs = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), -100)
    for index, row in enumerate(rows):
        inputs[index, : len(row) - 1] = torch.tensor(row[:-1])
        labels[index, : len(row) - 1] = torch.tensor(row[1:])
    return inputs.to(device), labels.to(device)


def score(model: Any, tokenizer: Any, texts: list[str], params: Evaluate, job: Job) -> Score:
    """Score `texts` under `model`.

    The padding stands behind each row, where causal attention cannot see it.

    Raises:
        UserError: no text, or a score that is not a number (damaged weights).
    """
    import torch

    rows = windows(tokenizer, texts, params.context_length)
    if not rows:
        raise UserError(
            "nothing to evaluate on: the held-out text is empty", "raise data.test_fraction or add documents"
        )
    nats, tokens = 0.0, 0
    total = -(-len(rows) // params.batch_size)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in job.track(batches(rows, params.batch_size), total, "evaluation batch"):
            inputs, labels = tensors(batch, model.device)
            logits = model(input_ids=inputs, use_cache=False).logits[
                :, -inputs.shape[1] :
            ]  # virtual tokens stand before
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum")
            nats += float(loss)
            tokens += int((labels != -100).sum())
    model.train(was_training)
    if not math.isfinite(nats):
        raise UserError("the model's loss on held-out text is not a number: its weights are damaged or diverged")
    return Score(nats, tokens, sum(len(text.encode()) for text in texts))
