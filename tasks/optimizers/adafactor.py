"""The second moment of a matrix as rows times columns, in torch's implementation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field

from tasks.optimizers.technique import Named, OptimizerTechnique, Shape, decay_groups, factored_bytes


class Adafactor(OptimizerTechnique):
    """A second moment of rows and columns, no first (arXiv:1804.04235).

    Steps are relative: the learning rate is a share of a tensor's root mean square, so it wants about ten times AdamW's.
    """

    elementwise = False

    beta2_decay: float = Field(default=-0.8, le=0)
    """Exponent of the step: how fast the second moment becomes a long average."""
    eps: float = Field(default=1e-3, ge=0)
    """Least root mean square a tensor's step is relative to (torch's second eps)."""
    d: float = Field(default=1.0, ge=1)
    """A step of a larger root mean square than this is scaled down to it."""

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """`torch.optim.Adafactor`."""
        import torch

        return torch.optim.Adafactor(
            decay_groups(named, weight_decay),
            lr=learning_rate,
            beta2_decay=self.beta2_decay,
            eps=(None, self.eps),
            d=self.d,
        )

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """A float32 per row and column of a matrix, or per number of a vector, and a float32 step per tensor."""
        return sum(map(factored_bytes, shapes))
