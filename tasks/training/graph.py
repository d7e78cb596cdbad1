"""The module a step runs: model and objective, ids in, loss out. What wraps modules (DDP, FSDP) wraps this one."""

from __future__ import annotations

from typing import Any

import torch

from tasks.objectives.technique import Objective
from tasks.training.loss import next_token_loss


class Graph(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """Model and objective as one module.

    Args:
        model: a transformers causal language model, or one that peft has wrapped.
        objective: at work on it.
    """

    def __init__(self, model: Any, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.beside = torch.nn.ModuleDict(objective.modules)
        self._objective = objective

    def forward(self, inputs: Any, labels: Any, extras: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The scalar to differentiate, and what the history shows of it; in `eval()` the next token's loss alone."""
        if not self.training:
            loss = next_token_loss(self.model, inputs, labels, extras.get("documents"))
            return loss, {"loss": loss}
        losses = self._objective.losses(self.model, inputs, labels, extras)
        return losses.total, {name: value.detach() for name, value in losses.shown.items()}

    def trained(self) -> list[tuple[str, Any]]:
        """Name and tensor of every parameter that is trained; the model's go by their own names."""
        found = [*self.model.named_parameters(), *self.beside.named_parameters(prefix="beside")]
        return [(name, parameter) for name, parameter in found if parameter.requires_grad]
