"""What recurrent layers share: the short convolution before the recurrence, and chunks that are filled up."""

from __future__ import annotations

from dataclasses import dataclass

FLOAT32 = 4
"""Bytes of a number of a recurrent state, which is kept in single precision whatever the model's type."""


@dataclass(frozen=True)
class Convolution:
    """A depthwise causal convolution over the last few tokens.

    Attributes:
        channels: each convolved by itself.
        kernel: tokens it sees.
    """

    channels: int
    kernel: int

    def forward_flops(self, context: int) -> float:
        """The padding on both sides is convolved too, and its result thrown away."""
        return 2.0 * self.channels * self.kernel * (context + self.kernel - 1)

    def backward_flops(self, context: int, trained: bool) -> float:
        """The input's gradient, and the kernel's."""
        return (2 if trained else 1) * self.forward_flops(context)

    @property
    def decode_flops(self) -> float:
        """Of one more token: the kept inputs and the new one fill two places, of which the last counts."""
        return 2.0 * self.channels * self.kernel * 2

    def cache_bytes(self, element: int) -> int:
        """As many inputs as the kernel is long."""
        return self.channels * self.kernel * element


def chunks_of(context: int, size: int) -> int:
    """Chunks that hold `context` tokens, the last one filled up."""
    return -(-context // size)
