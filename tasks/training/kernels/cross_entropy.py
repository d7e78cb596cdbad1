"""Losses of the output layer in chunks of tokens: never are the logits of all of them in memory.

The gradient is made in the forward pass, while a chunk's logits are there (Liger Kernel, arXiv:2410.10989, does so on GPUs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tasks.training.kernels import FEWEST, LOGITS

Each = Callable[[Any, slice], tuple[Any, Any]]
"""Sums over a chunk's tokens (K,), and the first one's gradient with respect to the logits: of the chunk's logits (n, V) in
float32, which it may overwrite, and of where the tokens lie."""


class Chunked(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Means over tokens of what a function makes of their logits; the first has a gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, each: Each) -> Any:
        """The means (K,), float32.

        Args:
            ctx: keeps the gradients, as yet of the sum: a mean's are too small for float16.
            hidden: last hidden states (N, d), in the type of the products.
            weight: of the output layer (V, d), in its own type, in which its gradient is added up.
            each: sums and slopes of a chunk.
        """
        size = max(FEWEST, LOGITS // len(weight))
        low = weight.to(hidden.dtype)
        sums: Any = 0.0
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            rows = hidden[part]
            values, slopes = each(torch.mm(rows, low.t()).float(), part)
            sums = sums + values
            slopes = slopes.to(rows.dtype)
            torch.mm(slopes, low, out=to_hidden[part])
            if to_weight is not None:
                to_weight += torch.mm(slopes.t(), rows)
        ctx.count = len(hidden)
        ctx.save_for_backward(to_hidden, to_weight)
        return sums / ctx.count

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """The gradients of the first mean."""
        to_hidden, to_weight = ctx.saved_tensors
        share = gradient[0] / ctx.count
        return to_hidden * share, None if to_weight is None else to_weight * share, None


def chunked(hidden: Any, weight: Any, each: Each) -> Any:
    """Means (K,) over tokens of what `each` makes of their logits; gradients of the first are made before it returns.

    Args:
        hidden: last hidden states (N, d), at least one; cast to autocast's type where it is on.
        weight: of the output layer (V, d).
        each: sums and slopes of a chunk.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return Chunked.apply(hidden, weight, each)


def chunked_cross_entropy(hidden: Any, weight: Any, labels: Any) -> Any:
    """Mean cross-entropy of tokens in nats; arguments as `chunked` takes them, and ids (N,), all of them real."""

    def each(logits: Any, part: slice) -> tuple[Any, Any]:
        targets = labels[part, None]
        normal = torch.logsumexp(logits, 1, keepdim=True)
        loss = (normal - logits.gather(1, targets)).sum()
        slopes = logits.sub_(normal).exp_()  # the probabilities, in the logits' place
        slopes.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=slopes.dtype))
        return loss[None], slopes

    return chunked(hidden, weight, each)[0]


def chunked_loss(hidden: Any, weight: Any, labels: Any) -> Any:
    """The same mean where nobody wants a gradient."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    size = max(FEWEST, LOGITS // len(weight))
    loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
    with torch.autocast(device, enabled=False):
        low = weight.to(hidden.dtype)
        for start in range(0, len(labels), size):
            logits = torch.mm(hidden[start : start + size], low.t()).float()
            loss += torch.nn.functional.cross_entropy(logits, labels[start : start + size], reduction="sum")
    return loss / len(labels)
