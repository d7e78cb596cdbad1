"""DoRA: LoRA turns the direction of each of a weight's rows, and a vector of its own learns their lengths."""

from __future__ import annotations

from typing import Any, ClassVar

from tasks.accounting import lora
from tasks.finetune.shared.low_rank import LowRank
from tasks.finetune.technique import Plan, Shape, Tuning
from tasks.models import Config


class Dora(LowRank):
    """Low-rank update of directions, magnitudes learned apart (arXiv:2402.09353)."""

    variant: ClassVar[dict[str, Any]] = {"use_dora": True}

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """Peft multiplies B A out in every pass, to norm its rows: as much work for one token as for all."""
        tuning = super().begin(base, plan)
        tuning.fixed = True
        return tuning

    def learning(self, config: Config) -> None:
        """More than LoRA's updates: the directions and what they are divided by."""

    def trained_shapes(self, config: Config) -> list[Shape]:
        """A, B and a magnitude per output of every adapted layer."""
        return [
            shape
            for layer in self.adapted_layers(config)
            for shape in ((self.r, layer.inputs), (layer.outputs, self.r), (layer.outputs,))
        ]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """LoRA's, and the magnitudes' gradients: two products that are summed over.

        With dropout the frozen product is computed a second time, on what is left of the input.
        """
        plain = super().flops_per_token(config, context, labelled)
        plain += sum(4 * layer.outputs for layer in self.adapted_layers(config))
        return plain + (lora.repeated_flops_per_token(config, self.target_modules) if self.lora_dropout else 0.0)

    def flops_per_pass(self, config: Config) -> float:
        """A and B multiplied with an identity matrix."""
        return sum(2 * self.r * layer.inputs * (layer.inputs + layer.outputs) for layer in self.adapted_layers(config))
