"""Cross-entropy of the output layer in chunks of tokens: never are the logits of all of them in memory.

The gradient is made in the forward pass, while a chunk's logits are there (Liger Kernel, arXiv:2410.10989, does so on GPUs).
"""

from __future__ import annotations

from typing import Any

import torch

from tasks.training.kernels import FEWEST, LOGITS


class ChunkedCrossEntropy(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Mean of -log softmax(hidden weight^T)[label] over tokens."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, labels: Any) -> Any:
        """The mean, float32.

        Args:
            ctx: keeps the gradients, as yet of the sum: a mean's are too small for float16.
            hidden: last hidden states (N, d), in the type of the products.
            weight: of the output layer (V, d), in its own type, in which its gradient is added up.
            labels: ids (N,), all of them real.
        """
        size = max(FEWEST, LOGITS // len(weight))
        low = weight.to(hidden.dtype)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for start in range(0, len(labels), size):
            rows, targets = hidden[start : start + size], labels[start : start + size, None]
            logits = torch.mm(rows, low.t()).float()
            normal = torch.logsumexp(logits, 1, keepdim=True)
            loss += (normal - logits.gather(1, targets)).sum()
            slopes = logits.sub_(normal).exp_()  # the probabilities, in the logits' place
            slopes.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=slopes.dtype))
            slopes = slopes.to(rows.dtype)
            torch.mm(slopes, low, out=to_hidden[start : start + size])
            if to_weight is not None:
                to_weight += torch.mm(slopes.t(), rows)
        ctx.count = len(labels)
        ctx.save_for_backward(to_hidden, to_weight)
        return loss / ctx.count

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """The gradients of the mean."""
        to_hidden, to_weight = ctx.saved_tensors
        share = gradient / ctx.count
        return to_hidden * share, None if to_weight is None else to_weight * share, None


def chunked_cross_entropy(hidden: Any, weight: Any, labels: Any) -> Any:
    """Mean cross-entropy of tokens in nats; the gradients of both tensors are made before it returns.

    Args:
        hidden: last hidden states (N, d); cast to autocast's type where it is on.
        weight: of the output layer (V, d).
        labels: ids (N,), at least one.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        hidden = hidden.to(torch.get_autocast_dtype(device))
    with torch.autocast(device, enabled=False):
        return ChunkedCrossEntropy.apply(hidden, weight, labels)


def chunked_loss(hidden: Any, weight: Any, labels: Any) -> Any:
    """The same mean where nobody wants a gradient; arguments as `chunked_cross_entropy` takes them."""
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
