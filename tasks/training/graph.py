"""The module a step runs: model and objective, ids in, loss out. What wraps modules (DDP, FSDP) wraps this one."""

from __future__ import annotations

from typing import Any

import torch

from tasks.objectives.technique import Objective
from tasks.training.hooks import Hooks
from tasks.training.loss import next_token_loss


class Graph(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """Model and objective as one module.

    Args:
        model: a transformers causal language model, or one that peft has wrapped.
        objective: at work on it.
        hooks: what a technique does between steps, and keeps.
    """

    def __init__(self, model: Any, objective: Objective, hooks: Hooks | None = None) -> None:
        super().__init__()
        self.model = model
        self.beside = torch.nn.ModuleDict(objective.modules)
        self._objective, self._hooks = objective, hooks or Hooks()
        self._trained = {name for name, parameter in self._all() if parameter.requires_grad}

    def forward(self, inputs: Any, labels: Any, extras: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The scalar to differentiate, and what the history shows of it; in `eval()` the next token's loss alone."""
        if not self.training:
            loss = next_token_loss(self.model, inputs, labels, extras.get("documents"))
            return loss, {"loss": loss}
        losses = self._objective.losses(self.model, inputs, labels, extras)
        total, shown, penalty = losses.total, losses.shown, self._hooks.penalty()
        if penalty is not None:
            total, shown = total + penalty, {**shown, "penalty": penalty}
        return total, {name: value.detach() for name, value in shown.items()}

    def trained(self) -> list[tuple[str, Any]]:
        """Name and tensor of every parameter that is trained at some step; the model's go by their own names."""
        return [(name, parameter) for name, parameter in self._all() if name in self._trained]

    def kept(self) -> dict[str, Any]:
        """Tensors that hooks keep."""
        return {f"hooks.{name}": tensor for name, tensor in self._hooks.tensors().items()}

    def _all(self) -> list[tuple[str, Any]]:
        return [*self.model.named_parameters(), *self.beside.named_parameters(prefix="beside")]
