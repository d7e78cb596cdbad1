"""A teacher at work: what it holds likely after every token, and what asking it cost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

ASKED_BYTES = 1 << 28
"""Logits of the teacher that are held at a time, in float32."""


def group(length: int, vocab: int) -> int:
    """Sequences of `length` tokens a teacher is asked about at a time."""
    return max(1, ASKED_BYTES // (4 * length * vocab))


class Teacher:
    """A model in evaluation mode and its own dtype, frozen.

    Args:
        folder: of the model.
        temperature: its logits are divided by.

    Attributes:
        model: the teacher.
        flops: spent on its forward passes since somebody set this to 0.
    """

    def __init__(self, folder: Path, temperature: float) -> None:
        from tasks.models.load import load_model

        self.model, self.temperature, self.flops = load_model(folder).requires_grad_(False), temperature, 0.0
        self._cost = cache(self._count)

    @property
    def vocab(self) -> int:
        """Tokens it tells apart."""
        return int(self.model.config.get_text_config().vocab_size)

    def log_probabilities(self, inputs: Any, documents: Any = None) -> Iterator[Any]:
        """Log-probabilities (n, T, V) in float32 of the token after every token, a few rows of `inputs` (B, T) at a time."""
        import torch

        size = group(inputs.shape[1], self.vocab)
        for at in range(0, len(inputs), size):
            rows = inputs[at : at + size]
            some = None if documents is None else documents[at : at + size]
            with torch.inference_mode():
                logits = self._logits(rows, some)
                made = (logits.float() / self.temperature).log_softmax(-1)
            self.flops += len(rows) * self._cost(rows.shape[1])
            yield made

    def likeliest(self, inputs: Any, count: int, documents: Any = None) -> tuple[Any, Any]:
        """The `count` likeliest tokens after every token of `inputs` (B, T).

        Returns:
            Log-probabilities (B, T, count + 1), the last that of all other tokens together, and ids (B, T, count); of
            the whole vocabulary there are no others, and so no last.
        """
        import torch

        values, ids = [], []
        for made in self.log_probabilities(inputs, documents):
            with torch.inference_mode():
                top = made.topk(count, -1)
                values.append(with_rest(made, top.values, top.indices))
                ids.append(top.indices)
        # outside of inference mode, whose tensors no backward pass may keep
        return torch.cat(values), torch.cat(ids)

    def _logits(self, rows: Any, documents: Any) -> Any:
        import torch

        from tasks.training.documents import own_documents

        with torch.autocast(self.model.device.type, enabled=False):
            return self.model(input_ids=rows, use_cache=False, **own_documents(documents)).logits

    def _count(self, length: int) -> float:
        """FLOPs of one sequence."""
        import torch

        from tasks.training.flops import counting

        with torch.inference_mode(), counting() as counter:
            self._logits(torch.zeros(1, length, dtype=torch.long, device=self.model.device), None)
        return counter.total


def with_rest(log_probabilities: Any, kept: Any, ids: Any) -> Any:
    """Append to `kept` (..., K), taken at `ids` from log-probabilities (..., V), what all the others hold together.

    Summed over the others themselves: one minus the kept ones has no digits left where they are nearly everything.
    """
    import torch

    if ids.shape[-1] == log_probabilities.shape[-1]:
        return kept
    rest = log_probabilities.scatter(-1, ids, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([kept, rest], -1)
