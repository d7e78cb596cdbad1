"""Diff pruning: the model's weights plus a sparse difference, whose places are learned with it."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.accounting import lora
from tasks.accounting.partial import apart_flops_per_token
from tasks.finetune.shared.targets import ALL, linear_names, refused, targets
from tasks.finetune.technique import FinetuneTechnique, Plan, Shape, Tuning
from tasks.models import Config


class GatedTuning(Tuning):
    """Differences and their gates at work.

    Args:
        model: the base; the linear layers of its blocks become base and difference.
        plan: of the run.
        technique: its fields.
    """

    def __init__(self, model: Any, plan: Plan, technique: DiffPruning) -> None:
        from torch.nn.utils import parametrize

        from tasks.finetune.shared.hard_concrete import Difference

        super().__init__(model)
        self.plan, self.technique = plan, technique
        self.cut = min(max(0, plan.steps - 1), round(technique.prune_at * plan.steps))
        model.requires_grad_(False)
        self.parts: dict[str, Any] = {}
        for name in _adapted(model):
            layer = model.get_submodule(name)
            gates = (technique.alpha_init, technique.alpha_scale, technique.sparsity_penalty)
            self.parts[name] = Difference(layer.weight, *gates)
            parametrize.register_parametrization(layer, "weight", self.parts[name])

    def before_step(self, step: int, optimizer: Any) -> None:
        """At the cut: only the largest differences stay, and go on learning."""
        from tasks.finetune.shared.hard_concrete import keep_largest

        parts = list(self.parts.values())
        if step == self.cut and all(bool(part.mask.all()) for part in parts):
            keep_largest(parts, self.technique.target_sparsity)
        for part in parts:
            part.fixed = step >= self.cut
            part.alpha.requires_grad_(not part.fixed)

    def tensors(self) -> dict[str, Any]:
        """Which weights may differ."""
        return {f"{name}.mask": part.mask for name, part in self.parts.items()}

    def write(self, folder: Path) -> bool:
        """Places and new values of the weights that may differ."""
        import torch

        from tasks.models.difference import INDICES, VALUES, write_difference
        from tasks.models.load import stored_dtype

        kind, tensors = stored_dtype(self.plan.base), {}
        with torch.no_grad():
            for name, part in self.parts.items():
                places = part.mask.flatten().nonzero().flatten()
                values = self.model.get_submodule(name).weight.flatten()[places].to(kind)
                tensors[f"{name}.weight{INDICES}"] = places.int().cpu()
                tensors[f"{name}.weight{VALUES}"] = values.cpu()
        write_difference(folder, tensors, self.plan.base, method="diff_pruning")
        return True

    def merged(self) -> Any:
        """The base with the differences in its weights."""
        from torch.nn.utils import parametrize

        for name in self.parts:
            parametrize.remove_parametrizations(self.model.get_submodule(name), "weight", leave_parametrized=True)
        return self.model


class DiffPruning(FinetuneTechnique):
    """A sparse difference found with hard-concrete gates and a penalty on open ones (arXiv:2012.07463).

    Gates and differences of the blocks' linear layers are trained together; at `prune_at` only the largest differences
    stay, and go on learning. Two numbers per weight are trained, so it takes more memory than full tuning: what is small
    is what is delivered.
    """

    frozen = False
    shrinks = True

    target_sparsity: float = Field(default=0.005, gt=0, le=0.5)
    """Share of the weights that may differ in the end."""
    sparsity_penalty: float = Field(default=1.25e-7, ge=0)
    """What an open gate adds to the loss."""
    alpha_init: float = 5.0
    """Logit of every gate at first: open."""
    alpha_scale: float = Field(default=100.0, gt=0)
    """How many times faster than the differences the gates' logits learn (upstream gives them a rate of their own)."""
    prune_at: float = Field(default=0.7, gt=0, lt=1)
    """Share of the steps after which the gates are fixed."""

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """Frozen weights with a gated difference to each."""
        return GatedTuning(base, plan, self)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A difference and a gate per weight, layer by layer."""
        return [shape for layer in lora.adapted(config, ALL) for shape in ((layer.outputs, layer.inputs),) * 2]

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """Places, and values there, of all layers together."""
        weights = sum(layer.inputs * layer.outputs for layer in lora.adapted(config, ALL))
        return [(max(1, round(self.target_sparsity * weights)),)] * 2

    def delivered(self, config: Config, stored: int, steps: int, seed: int) -> list[tuple[Shape, int]]:
        """Places in four bytes, values in the type of the model's weights; empty tensors stand for the layers' names."""
        places, values = self.adapter_shapes(config)
        names: list[tuple[Shape, int]] = [((0,), 4)] * (2 * len(lora.adapted(config, ALL)) - 2)
        return [(places, 4), (values, stored), *names]

    def beside_bytes(self, config: Config) -> int:
        """Differences and gates themselves, the weights made of them, and what a gate keeps for its way back."""
        return 2 * 4 * sum(map(prod, self.trained_shapes(config)))

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """Forward, back to the first layer, and the layers' own gradients."""
        layers = lora.adapted(config, ALL)
        return apart_flops_per_token(config, context, labelled, layers, lambda made: 2.0 * made.inputs * made.outputs)

    def refuse(self, config: Config) -> str:
        """Weights that are ternary."""
        return refused(config, "finetune.diff_pruning", ALL) or super().refuse(config)


def _adapted(model: Any) -> list[str]:
    """Names of the linear layers of the blocks.

    Raises:
        ValueError: the weights are ternary.
    """
    wanted = targets(model, ALL)
    return linear_names(model) if isinstance(wanted, str) else wanted
