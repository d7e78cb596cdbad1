"""The optimizer behind `mezo`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch


class ZerothOrder(torch.optim.Optimizer):  # type: ignore[misc]  # torch is not followed
    """Moves along normal noise by the slope there, as far as two losses tell it (arXiv:2305.17333, algorithm 1).

    Noise is never kept: a tensor's is drawn from one seed and the tensor's number, whenever it is needed.

    Args:
        groups: as torch takes them, each with `weight_decay`.
        learning_rate: of all of them.
        zo_eps: how far to either side the losses are asked for.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float, zo_eps: float) -> None:
        super().__init__(groups, {"lr": learning_rate})
        self.zo_eps = zo_eps
        every = [parameter for group in self.param_groups for parameter in group["params"]]
        self._number = {
            parameter: number for number, parameter in enumerate(every)
        }  # whatever groups they come to be in
        self._slope, self._seed = 0.0, 0

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def estimate(self, loss: Callable[[], float], max_slope: float) -> float:
        """The slope along new noise, before it is limited; tensors are back where they were, but for rounding.

        Both losses see the same chance (dropout): torch's generator begins anew for each with the seed it had.

        Args:
            loss: of the tensors as they are.
            max_slope: a slope of a larger size counts as this.
        """
        self._seed = torch.initial_seed()
        found = []
        for moved in (self.zo_eps, -2 * self.zo_eps):
            for parameter, noise, _ in self._noise():
                parameter.add_(noise, alpha=moved)
            torch.manual_seed(self._seed)
            found.append(loss())
        for parameter, noise, _ in self._noise():
            parameter.add_(noise, alpha=self.zo_eps)
        slope = (found[0] - found[1]) / (2 * self.zo_eps)
        self._slope = max(-max_slope, min(max_slope, slope))
        return slope

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        """Move every tensor against the slope that was found last, along the noise it was found along."""
        for parameter, noise, group in self._noise():
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(noise, alpha=-group["lr"] * self._slope)
        self._slope = 0.0

    def _noise(self) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
        """Every tensor that is trained, its noise, and its group."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad:
                    seed = (self._seed * 1_000_003 + self._number[parameter]) % (1 << 63)
                    made = torch.Generator(parameter.device).manual_seed(seed)
                    noise = torch.empty_like(parameter).normal_(generator=made)
                    yield parameter, noise, group
                    del noise  # before the next one is made
