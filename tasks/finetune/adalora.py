"""AdaLoRA: an update as a singular value decomposition, P E Q; the least important of its ranks are cut while it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from tasks.core.errors import UserError
from tasks.finetune.shared.adapter import PeftTuning
from tasks.finetune.shared.low_rank import Targeted
from tasks.finetune.shared.targets import targets
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config


class AdaLora(Targeted):
    """Low-rank update whose ranks go to the layers where they matter (arXiv:2303.10512)."""

    rank_field = "init_r"
    reads_gradients = True
    shrinks = True

    init_r: PositiveInt = 12
    """Rank every layer begins with."""
    target_r: PositiveInt = 8
    """Rank the layers end with on average; what is delivered has it."""
    tinit: NonNegativeInt = 0
    """Steps before the first rank is cut."""
    tfinal: NonNegativeInt = 0
    """Steps after the last one is cut."""
    deltaT: PositiveInt = 1  # noqa: N815 (upstream's name)
    """Steps from one cut to the next."""
    beta1: float = Field(default=0.85, gt=0, lt=1)
    """Averaging coefficient of the importance."""
    beta2: float = Field(default=0.85, gt=0, lt=1)
    """Averaging coefficient of its uncertainty."""
    orth_reg_weight: NonNegativeFloat = 0.5
    """Weight of the penalty that keeps P and Q orthogonal."""

    @model_validator(mode="after")
    def _cuts(self) -> Self:
        if self.target_r >= self.init_r:
            raise ValueError(f"target_r {self.target_r} must be below init_r {self.init_r}: ranks are only ever cut")
        return self

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """A `peft.PeftModel` and its `RankAllocator`.

        Raises:
            UserError: there are too few steps, or the optimizer leaves no gradients to weigh ranks by.
        """
        if self.tinit + self.tfinal >= plan.steps or plan.steps - self.tfinal < 2:
            raise UserError(
                f"finetune.adalora: found tinit {self.tinit} and tfinal {self.tfinal} in finetune.steps {plan.steps}; ranks are "
                "cut between the first tinit and the last tfinal steps, and weighed for a step at least before",
                "lower tinit or tfinal, or raise finetune.steps",
            )
        if not plan.optimizer.keeps_gradients:
            raise UserError(
                "finetune.optimizer.method: it leaves no gradients behind, and finetune.adalora weighs ranks by them",
                "choose another optimizer, e.g. adamw",
            )
        return _Allocating(super().begin(base, plan).model, self.orth_reg_weight)

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.AdaLoraConfig` of the run's length."""
        from peft import AdaLoraConfig

        fields = self.model_dump() | {"target_modules": targets(base, self.target_modules)}
        return AdaLoraConfig(task_type="CAUSAL_LM", total_step=plan.steps, **fields)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Q (init_r, inputs), E (init_r, 1) and P (outputs, init_r) of every adapted layer."""
        return self._triples(config, self.init_r)

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """As if every layer kept target_r ranks, which they do on average."""
        return self._triples(config, self.target_r)

    def flops_per_pass(self, config: Config) -> float:
        """P'P and QQ' for the penalty, three products each; E's gradient, a product that is summed over."""
        r = self.init_r
        layers = self.adapted_layers(config)
        penalty = sum(6 * r * r * (layer.inputs + layer.outputs) for layer in layers) if self.orth_reg_weight else 0
        return float(penalty + sum(2 * r * layer.inputs for layer in layers))

    def _triples(self, config: Config, rank: int) -> list[Shape]:
        return [
            shape
            for layer in self.adapted_layers(config)
            for shape in ((rank, layer.inputs), (rank, 1), (layer.outputs, rank))
        ]


class _Allocating(PeftTuning):
    """Cuts ranks between steps; importance and what is left are tensors, so that a killed run cuts the same."""

    fixed = True

    def __init__(self, model: Any, weight: float) -> None:
        import torch

        super().__init__(model, merges=True)
        self._tuner, self._weight = model.base_model, weight
        self._config = model.peft_config["default"]
        self._learned = {n: p for n, p in self._tuner.model.named_parameters() if ".lora_" in n and p.requires_grad}
        ranks = {n: p for n, p in self._learned.items() if ".lora_E." in n}
        self._left = {n: torch.ones(p.shape[0], dtype=torch.bool, device=p.device) for n, p in ranks.items()}
        self._fill()

    def _fill(self) -> None:
        """Give the allocator averages of zero wherever it has none: it drops them when the last rank is cut."""
        import torch

        allocator = self._tuner.rankallocator
        for averages in (allocator.ipt, allocator.exp_avg_ipt, allocator.exp_avg_unc):
            missing = self._learned.keys() - averages.keys()
            averages.update((name, torch.zeros_like(self._learned[name], requires_grad=False)) for name in missing)

    def penalty(self) -> Any | None:
        """How far P and Q are from orthogonal, the mean Frobenius norm over all of them, as peft's model weighs it."""
        import torch

        if not self._weight:
            return None
        wide = [p @ p.T for name, p in self._learned.items() if ".lora_A." in name]
        tall = [p.T @ p for name, p in self._learned.items() if ".lora_B." in name]
        norms = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)) for gram in wide + tall]
        return self._weight * torch.stack(norms).mean()

    def after_step(self, step: int) -> None:
        """Weigh the ranks by this step's gradients, and cut what is due."""
        self._config.rank_pattern = {name: left.tolist() for name, left in self._left.items()}
        self._tuner.update_and_allocate(step + 1)
        for name, left in self._config.rank_pattern.items():
            self._left[name].copy_(self._left[name].new_tensor(left))
        self._fill()

    def tensors(self) -> dict[str, Any]:
        """Importance and uncertainty of every number that is trained, and which ranks are left."""
        allocator = self._tuner.rankallocator
        return {
            **{f"importance.{name}": allocator.exp_avg_ipt[name] for name in self._learned},
            **{f"uncertainty.{name}": allocator.exp_avg_unc[name] for name in self._learned},
            **{f"left.{name}": left for name, left in self._left.items()},
        }

    def write(self, folder: Path) -> bool:
        """The ranks that are left."""
        self._config.rank_pattern = {name: left.tolist() for name, left in self._left.items()}
        return super().write(folder)
