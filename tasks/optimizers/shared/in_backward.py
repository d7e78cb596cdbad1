"""The optimizer behind `lomo` and `adalomo`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tasks.optimizers.shared.rule import Direction, RuleOptimizer
from tasks.optimizers.shared.ruled import Place


class InBackward(RuleOptimizer):
    """Moves tensors in the backward passes that run inside `moving`; `step` has nothing left to do.

    Args:
        groups: as torch takes them, each with `weight_decay`.
        learning_rate: of all of them.
        direction: the rule.
        places: of every tensor.

    Attributes:
        grad_norm: of all gradients of the last `moving`, before they were limited.
    """

    def __init__(
        self, groups: list[dict[str, Any]], learning_rate: float, direction: Direction, places: dict[Any, Place]
    ) -> None:
        super().__init__(groups, learning_rate, direction, places)
        self.grad_norm = 0.0
        self._squares: list[Any] = []
        self._max_norm: float | None = None
        self._group: dict[Any, dict[str, Any]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(self._move)

    @contextmanager
    def moving(self, max_norm: float) -> Iterator[None]:
        """Backward passes inside move the tensors; others leave gradients as ever.

        Args:
            max_norm: a tensor's gradient of a larger norm is scaled down to it.
        """
        self._max_norm, self._squares = max_norm, []
        # looked up anew: loading a state makes new groups
        self._group = {parameter: group for group in self.param_groups for parameter in group["params"]}
        try:
            yield
        finally:
            self._max_norm = None
        self.grad_norm = float(torch.stack(self._squares).sum().sqrt()) if self._squares else 0.0

    def step(self, closure: Any = None) -> None:
        """Nothing: tensors have moved."""

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _move(self, parameter: Any) -> None:
        if self._max_norm is None:
            return
        norm = parameter.grad.norm()
        self._squares.append(norm.square())
        parameter.grad.mul_((self._max_norm / norm.clamp_min(1e-6)).clamp(max=1.0))
        self.move(parameter, self._group[parameter])
        parameter.grad = None
