"""One second moment per row of a matrix instead of one per number."""

from __future__ import annotations

from math import prod
from typing import Any

from tasks.optimizers.shared.ruled import Place, Ruled, State, corrected, tick
from tasks.optimizers.technique import AdamLike, Shape


class AdamMini(Ruled, AdamLike):
    """One second moment per output row of a matrix, one per vector (arXiv:2406.16793).

    The paper's blocks are rows of embeddings, values and feed-forward, and heads of queries and keys; here those are
    rows as well, which is finer, costs four bytes a row, and needs no number of heads.
    """

    elementwise = False

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """AdamW's, with the mean square of a row in the place of every square."""
        import torch

        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(gradient)
            state["exp_avg_sq"] = torch.zeros_like(gradient.mean(-1, keepdim=True))
        betas = (self.beta1, self.beta2)
        step, first, second = tick(state), state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(gradient, 1 - betas[0])
        second.lerp_(gradient.square().mean(-1, keepdim=True), 1 - betas[1])
        return corrected(first, second, step, betas, self.eps)

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """A float32 moment per number, one per row, and the step."""
        return 4 * prod(shape) + 4 * prod(shape[:-1]) + 4
