"""Chats as batches: each in a row of its own, or several in one, none of which knows of the others."""

from __future__ import annotations

from typing import Any

from tasks.models.chat import IGNORED, Example
from tasks.models.packing import Dealer, Rows
from tasks.training.batch import Batch


def batch(examples: list[Example], rows: Rows, device: Any) -> Batch:
    """Inputs and labels (B, T), padded on the right; where chats share rows, `documents` (B, T) numbers them.

    Padding behind packed chats is a document too.
    """
    import torch

    shape = len(rows.chats), rows.length
    inputs, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
    documents = torch.zeros(shape, dtype=torch.long)
    for number, row in enumerate(rows.chats):
        start = 0
        for place, chat in enumerate(row):
            example = examples[chat]
            end = start + len(example.labels)
            inputs[number, start:end] = torch.tensor(example.ids[:-1])
            labels[number, start:end] = torch.tensor(example.labels)
            documents[number, start:end] = place
            start = end
        documents[number, start:] = len(row)
    extras = {"documents": documents.to(device)} if rows.packed else {}
    return Batch(inputs.to(device), labels.to(device), extras)


class Held:
    """Held-out chats to watch the loss on.

    Args:
        model: what is trained.
        examples: the chats.
        batch_size: chats per forward pass.
        packed: whether they share rows.
        precision: of the forward pass, resolved.
    """

    def __init__(self, model: Any, examples: list[Example], batch_size: int, packed: bool, precision: str) -> None:
        self.model, self.examples, self.precision = model, examples, precision
        self.dealt = Dealer(tuple(len(example.labels) for example in examples), batch_size, 0, packed)

    def loss(self) -> float:
        """Mean loss in nats over all tokens of answers, however they are batched. The model is left in `eval()`."""
        import torch

        from tasks.models.device import autocast
        from tasks.training.kernels.attention import blockwise
        from tasks.training.loss import next_token_loss

        self.model.eval()
        summed, tokens = 0.0, 0
        with torch.no_grad(), autocast(self.precision), blockwise(self.model):
            for rows in self.dealt.in_turn():
                part = batch(self.examples, rows, self.model.device)
                loss = next_token_loss(self.model, part.inputs, part.labels, part.extras.get("documents"))
                summed, tokens = summed + float(loss) * part.labelled, tokens + part.labelled
        return summed / tokens
