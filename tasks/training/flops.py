"""FLOPs of training, counted from the operators that run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flops:
    """FLOPs of a batch: linear * tokens + quadratic * tokens * length + head * labelled tokens."""

    linear: float
    quadratic: float
    head: float

    def of(self, sequences: int, length: int, labelled: int) -> float:
        """FLOPs of `sequences` of `length` tokens, of which `labelled` in all have a logit computed."""
        tokens = sequences * length
        return self.linear * tokens + self.quadratic * tokens * length + self.head * labelled


def count(step: Callable[[int, int], None], length: int) -> Flops:
    """Count the operators of `step(T, labelled)` (forward and backward of one sequence) and solve for the three terms.

    Attention runs unfused while it is counted: torch's counter doesn't know the fused kernel of the CPU.
    """
    half = max(2, length // 2)
    whole = 2 * half
    long, more, short = _count(step, whole, 1), _count(step, whole, 2), _count(step, half, 1)
    head = more - long
    long, short = long - head, short - head
    quadratic = (long - 2 * short) / (whole**2 - 2 * half**2)
    return Flops((short - quadratic * half**2) / half, quadratic, head)


def _count(step: Callable[[int, int], None], length: int, labelled: int) -> float:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter: Any = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        step(length, labelled)
    return float(counter.get_total_flops())
