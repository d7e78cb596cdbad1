"""LoRA, as everything that grew from it shares it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from tasks.accounting import lora
from tasks.accounting.memory import Learning, Updates
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.shared.targets import ALL, refused, targets, too_large
from tasks.finetune.technique import Plan, Shape
from tasks.models import Config
from tasks.training.kernels import GATED


class Targeted(PeftTechnique):
    """Two thin matrices beside each of the frozen ones that are chosen.

    Attributes:
        rank_field: name of the field that is the rank they are trained with.
        decomposes: whether the thin matrices are made from the frozen one, which must have as many rows and columns.
        plain: whether it is LoRA as it was first described on matrices as they are: what this project's own kernel computes.
    """

    rank_field: ClassVar[str] = "r"
    decomposes: ClassVar[bool] = False
    plain: ClassVar[bool] = False

    lora_alpha: PositiveFloat = 16
    """Scale of the update: it is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input while training."""
    target_modules: str | list[str] = ALL
    """Names of the layers to adapt, or `all-linear`: every linear module but the output layer. Experts are none."""

    @property
    def rank(self) -> int:
        """Rank of the matrices that are trained."""
        return int(getattr(self, self.rank_field))

    def adapted_layers(self, config: Config) -> list[lora.Layer]:
        """Those that are adapted, in the model's order."""
        return lora.adapted(config, self.target_modules)

    def learning(self, config: Config) -> Learning | None:
        """The updates, and nothing but them."""
        layers = self.adapted_layers(config)
        gate = config.get("model_type", "llama") in GATED and self.plain and not self.lora_dropout
        updates = Updates(self.rank, frozenset(layer.name for layer in layers), self.lora_dropout > 0, gate)
        return Learning(min((layer.place for layer in layers), default=(0, 0))[0], frozenset(), updates)

    def shapes(self, config: Config, rank: int) -> list[Shape]:
        """A (rank, inputs) and B (outputs, rank) of every adapted layer."""
        return [
            shape for layer in self.adapted_layers(config) for shape in ((rank, layer.inputs), (layer.outputs, rank))
        ]

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A and B."""
        return self.shapes(config, self.rank)

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's, and the adapter's."""
        whole = lora.training_flops_per_token(config, context, self.rank, self.target_modules)
        return whole - 2 * lora.head_flops(config) * (1 - labelled)

    def forward_flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The model's, and the adapter's."""
        adapter = 2 * lora.trainable_parameters(config, self.rank, self.target_modules)
        return super().forward_flops_per_token(config, context, labelled) + adapter

    def refuse(self, config: Config) -> str:
        """Layers that aren't there, can't be adapted or are smaller than the rank; weights that can't be trained on."""
        fields = f"finetune.{self.method}"
        return (
            refused(config, f"{fields}.target_modules", self.target_modules)
            or too_large(self.adapted_layers(config), f"{fields}.{self.rank_field}", self.rank, self.decomposes)
            or super().refuse(config)
        )


class LowRank(Targeted):
    """A product of two thin matrices beside a frozen one."""

    r: PositiveInt = 8
    """Rank of the update; the adapter's size grows linearly with it."""

    variant: ClassVar[dict[str, Any]] = {}
    plain = True

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """A `peft.LoraConfig`."""
        from peft import LoraConfig

        fields = {name: getattr(self, name) for name in LowRank.model_fields}
        fields["target_modules"] = targets(base, self.target_modules)
        return LoraConfig(task_type="CAUSAL_LM", **fields, **self.variant)
