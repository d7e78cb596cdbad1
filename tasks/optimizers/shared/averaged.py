"""The optimizer behind `schedule_free`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tasks.optimizers.shared.rule import RuleOptimizer
from tasks.optimizers.shared.ruled import tick

if TYPE_CHECKING:
    from tasks.optimizers.schedule_free import ScheduleFree


class Averaged(RuleOptimizer):
    """Schedule-free AdamW (arXiv:2405.15682, algorithm 1 and section 4.2).

    Three points a tensor: z moves, x is the average of the zs, and gradients are taken at y between them. A tensor holds y
    while it learns and x while it is judged; z is in the state, the third follows from two.

    Args:
        groups: as torch takes them, each with `weight_decay`.
        learning_rate: of all of them.
        technique: its fields.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, technique: ScheduleFree) -> None:
        super().__init__(groups, learning_rate, lambda *_: None, {})
        self.technique = technique
        self._learning: dict[Any, Any] = {}  # y of every tensor, while it holds x

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def eval(self) -> None:
        """Put the average into the tensors; y is kept aside, so that judging a model changes nothing of its training."""
        if self._learning:
            return
        for parameter, state in self.state.items():
            self._learning[parameter] = parameter.clone()
            parameter.lerp_(state["z"].to(parameter.dtype), 1 - 1 / self.technique.beta1)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def train(self) -> None:
        """Put the point that learns back."""
        for parameter, value in self._learning.items():
            parameter.copy_(value)
        self._learning.clear()

    def move(self, parameter: Any, group: dict[str, Any]) -> None:
        """One step of y and z; the average moves with them."""
        fields, state, rate = self.technique, self.state[parameter], group["lr"]
        if "z" not in state:
            state["z"] = parameter.detach().float().clone()
            state["exp_avg_sq"] = torch.zeros_like(state["z"])
            state["lr_max"], state["weight_sum"] = torch.zeros(()), torch.zeros(())
        step, gradient = tick(state), parameter.grad.float()
        state["lr_max"].clamp_(min=rate)
        weight = float(state["lr_max"]) ** fields.weight_lr_power * step**fields.r
        state["weight_sum"].add_(weight)
        share = weight / float(state["weight_sum"]) if weight else 0.0
        second = state["exp_avg_sq"].mul_(fields.beta2).addcmul_(gradient, gradient, value=1 - fields.beta2)
        root = second.sqrt().div_((1 - fields.beta2**step) ** 0.5).add_(fields.eps)
        found = (gradient / root).add_(parameter, alpha=group["weight_decay"])
        parameter.lerp_(state["z"].to(parameter.dtype), share)
        parameter.add_(found, alpha=rate * (fields.beta1 * (1 - share) - 1))
        state["z"].sub_(found, alpha=rate)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A state belongs to the point that learns, which the weights beside it are."""
        self._learning.clear()
        super().load_state_dict(state_dict)
