"""LOMO with a step size of its own for every weight: a factored second moment, and steps relative to the tensor."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.optimizers.shared.moving import MovesInBackward
from tasks.optimizers.shared.ruled import Place, State, places, tick
from tasks.optimizers.technique import Named, Shape, decay_groups, factored_bytes

TINY = 1e-30
"""Added to squares, so that a zero gradient's step is zero (upstream's first eps)."""


class AdaLomo(MovesInBackward):
    """LOMO with a factored second moment and updates normalised tensor by tensor (arXiv:2310.10195).

    Steps are relative: the learning rate is a share of a tensor's root mean square, as Adafactor's is, so it wants about ten
    times AdamW's. State is a number per row and column. `max_grad_norm` limits every tensor's norm by itself, as for LOMO.
    """

    decay_rate: float = Field(default=-0.8, le=0)
    """Exponent of the step: how fast the second moment becomes a long average."""
    eps: float = Field(default=1e-3, ge=0)
    """Least root mean square a tensor's step is relative to (upstream's second eps)."""
    clip_threshold: float = Field(default=1.0, gt=0)
    """An update of a larger root mean square than this is scaled down to it."""

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """An `InBackward` whose steps are relative to the tensors they move."""
        from tasks.optimizers.shared.in_backward import InBackward

        weights = [parameter for _, parameter in named]

        def relative(gradient: Any, state: State, place: Place) -> Any:
            found = self.direction(gradient, state, place)
            return found.mul_(_rms(weights[place.number].float()).clamp_(min=self.eps))

        return InBackward(decay_groups(named, weight_decay), learning_rate, relative, places(named))

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """The gradient over the root of its second moment, of a root mean square of `clip_threshold` at most."""
        kept = 1.0 - tick(state) ** self.decay_rate
        square = gradient.square().add_(TINY)
        if gradient.dim() > 1:
            rows = _averaged(state, "exp_avg_sq_row", square.mean(dim=-1), kept)
            columns = _averaged(state, "exp_avg_sq_col", square.mean(dim=-2), kept)
            left = (rows / rows.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)
            update = square.copy_(gradient).mul_(left).mul_(columns.rsqrt().unsqueeze(-2))
        else:
            update = _averaged(state, "exp_avg_sq", square, kept).rsqrt().mul_(gradient)
        return update.div_((_rms(update) / self.clip_threshold).clamp_(min=1.0))

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """A float32 per row and column, and a float32 step."""
        return factored_bytes(shape)


def _averaged(state: State, name: str, value: Any, kept: float) -> Any:
    """The average of that name, with `value` in it; the first value is the first average."""
    if name not in state:
        state[name] = value.clone()
    return state[name].lerp_(value, 1 - kept)


def _rms(values: Any) -> Any:
    """Root mean square of all numbers."""
    return values.norm() / values.numel() ** 0.5
