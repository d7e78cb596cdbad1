"""Orthogonal steps for the matrices of the blocks, AdamW's for everything else."""

from __future__ import annotations

from math import prod
from typing import Any

from pydantic import Field, PositiveInt

from tasks.optimizers.shared.ruled import Place, Ruled, State, adam_direction
from tasks.optimizers.technique import AdamLike, Shape, adam_bytes

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration (kellerjordan.github.io/posts/muon): steepest at zero, singular values end between 0.7 and 1.2."""
RMS = 0.2
"""Root mean square of AdamW's steps, to which Muon's are scaled (arXiv:2502.16982, section 2.2), so that its rate fits."""


class Muon(Ruled, AdamLike):
    """Orthogonalized momentum for matrices of blocks, at AdamW's learning rate (arXiv:2502.16982).

    Embeddings, output layer and vectors are AdamW's, by `beta1`, `beta2` and `eps`.
    """

    elementwise = False

    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Averaging coefficient of a matrix's gradient."""
    nesterov: bool = True
    """Look ahead by one step of momentum."""
    ns_steps: PositiveInt = 5
    """Newton-Schulz iterations per step."""

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """The nearest orthogonal matrix of the momentum, times 0.2 x the root of its longer side; else AdamW's."""
        import torch

        if not place.hidden:
            return adam_direction(gradient, state, (self.beta1, self.beta2), self.eps)
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        buffer.lerp_(gradient, 1 - self.momentum)
        wanted = gradient.lerp(buffer, self.momentum) if self.nesterov else buffer
        return orthogonal(wanted, self.ns_steps) * (RMS * max(gradient.shape[-2:]) ** 0.5)

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """One float32 moment for a matrix of a block; AdamW's state else."""
        return 4 * prod(shape) if inside else adam_bytes(shape)


def orthogonal(matrices: Any, steps: int) -> Any:
    """Matrices (..., rows, columns) with their singular values driven to about 1, by Newton-Schulz.

    In bfloat16 where the device multiplies it natively, which is enough for it; else in float32.
    """
    import torch

    from tasks.models.device import native_bf16

    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    found = (matrices.mT if tall else matrices).to(torch.bfloat16 if native_bf16() else torch.float32)
    found = found / found.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = found @ found.mT
        found = a * found + (b * gram + c * (gram @ gram)) @ found
    return (found.mT if tall else found).to(matrices.dtype)
