"""Optimizers that are a rule for one tensor: its gradient and its own state in, its new value out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tasks.optimizers.technique import Named, OptimizerTechnique, Shape, decay_groups, hidden

State = dict[str, Any]
"""One tensor's state, by name: tensors only, so that it can be written as safetensors."""


@dataclass(frozen=True)
class Place:
    """A tensor's place in the model.

    Attributes:
        number: in the model's order.
        hidden: whether it is a matrix of a block.
    """

    number: int
    hidden: bool


class Ruled(OptimizerTechnique):
    """An optimizer by its rule."""

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """What a tensor moves against, times the learning rate; weight decay is not the rule's.

        Args:
            gradient: of the tensor, float32.
            state: the tensor's own, empty at first; changed in place.
            place: of the tensor.
        """
        raise NotImplementedError

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """Bytes of one tensor's state; `inside`: whether it is a matrix of a block (`hidden`)."""
        raise NotImplementedError

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """A `RuleOptimizer`."""
        from tasks.optimizers.shared.rule import RuleOptimizer

        return RuleOptimizer(decay_groups(named, weight_decay), learning_rate, self.direction, places(named))

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """Sum over the tensors."""
        found = list(shapes)
        return sum(self.bytes_of(shape, inside) for shape, inside in zip(found, hidden(found), strict=True))


def places(named: Named) -> dict[Any, Place]:
    """Tensor -> its place."""
    inside = hidden(tuple(p.shape) for _, p in named)
    return {p: Place(number, inside[number]) for number, (_, p) in enumerate(named)}


def tick(state: State) -> int:
    """Count a step of one tensor, in its state; the number of the step, from 1."""
    import torch

    state.setdefault("step", torch.zeros(())).add_(1)
    return int(state["step"])


def adam_direction(gradient: Any, state: State, betas: tuple[float, float], eps: float) -> Any:
    """Adam's step for a gradient of any shape, moments in the state: to be multiplied by the rate and subtracted."""
    import torch

    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(gradient)
        state["exp_avg_sq"] = torch.zeros_like(gradient)
    step, first, second = tick(state), state["exp_avg"], state["exp_avg_sq"]
    move_moments(first, second, gradient, betas)
    return corrected(first, second, step, betas, eps)


def move_moments(first: Any, second: Any, gradient: Any, betas: tuple[float, float]) -> None:
    """Adam's averages of gradient and square, in place."""
    first.lerp_(gradient, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])


def corrected(first: Any, second: Any, step: int, betas: tuple[float, float], eps: float) -> Any:
    """First over root of second moment, both without the bias of their first steps; `second` may broadcast."""
    root = second.sqrt().div_((1 - betas[1] ** step) ** 0.5).add_(eps)
    return (first / root).div_(1 - betas[0] ** step)
