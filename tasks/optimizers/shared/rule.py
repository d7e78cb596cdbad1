"""A torch optimizer that moves tensor by tensor, by a technique's rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tasks.optimizers.shared.ruled import Place, State

Direction = Callable[[Any, State, Place], Any]


class RuleOptimizer(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not followed
    """Moves every tensor against its direction, times the learning rate; weight decay is decoupled (arXiv:1711.05101).

    Args:
        groups: as torch takes them, each with `weight_decay`.
        learning_rate: of all of them.
        direction: the rule.
        places: of every tensor.
    """

    def __init__(
        self, groups: list[dict[str, Any]], learning_rate: float, direction: Direction, places: dict[Any, Place]
    ) -> None:
        super().__init__(groups, {"lr": learning_rate})
        self.direction, self.places = direction, places

    def part(self, groups: list[dict[str, Any]]) -> RuleOptimizer:
        """The same rule for a part of the tensors.

        Args:
            groups: as this one's, with fewer tensors.
        """
        return RuleOptimizer(groups, self.defaults["lr"], self.direction, self.places)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """Move every tensor that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, group)

    def move(self, parameter: Any, group: dict[str, Any]) -> None:
        """Move one tensor."""
        found = self.direction(parameter.grad.float(), self.state[parameter], self.places[parameter])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(found, alpha=-group["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state as it is: torch would cast codes of 8 bits to the parameter's type."""
        super().load_state_dict(state_dict)
        held = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = held[number]
            for name, value in saved.items():
                device = "cpu" if name == "step" else parameter.device  # counted on the host: no one waits for a device
                self.state[parameter][name] = value.to(device, copy=True)
