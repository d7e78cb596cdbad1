"""Adapters that sit on linear layers, each told by its shapes and what a token costs there."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from tasks.accounting import lora
from tasks.accounting.lora import Layer
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.shared.targets import ALL, refused, targets
from tasks.finetune.technique import Plan, Shape
from tasks.models import Config


class OnLinear(PeftTechnique):
    """The same small part on each of the named linear layers.

    Attributes:
        config_class: name of peft's config.
    """

    target_modules: str | list[str] = ALL
    """Names of the layers to adapt, or `all-linear`: every linear module but the output layer. Experts are none."""

    config_class: ClassVar[str]

    def peft_config(self, base: Any, plan: Plan) -> Any:
        """The config of `config_class`, made of the fields and of what follows from the run."""
        import peft

        fields = self.model_dump() | {"target_modules": targets(base, self.target_modules)} | self.fields(plan)
        return getattr(peft, self.config_class)(task_type="CAUSAL_LM", **fields)

    def fields(self, plan: Plan) -> dict[str, Any]:
        """Fields of the config that the run decides: seeds."""
        return {}

    def layer_shapes(self, layer: Layer) -> list[Shape]:
        """Shapes of what is trained on a layer."""
        raise NotImplementedError

    def layer_flops(self, layer: Layer, learns: bool) -> float:
        """FLOPs of a token on a layer beside its own; `learns`: whether its input needs a gradient, too."""
        raise NotImplementedError

    def layer_work(self, layer: Layer) -> float:
        """FLOPs of a step on a layer's weights alone."""
        return 0.0

    def stands_before(self, layer: Layer) -> bool:
        """Whether the layer reads what the adapter made, and not the other way round."""
        return False

    def layer_refused(self, layer: Layer) -> str:
        """What is wrong with a layer, and what to do; "" if nothing."""
        return ""

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Those of all layers."""
        return [shape for layer in self.adapted_layers(config) for shape in self.layer_shapes(layer)]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's, and the adapter's."""
        chosen = self.adapted_layers(config)
        before = {layer.name for layer in chosen if self.stands_before(layer)}
        whole = lora.frozen_flops_per_token(config, context, chosen, self.layer_flops, before)
        return whole - 2 * lora.head_flops(config) * (1 - labelled)

    def flops_per_pass(self, config: Config) -> float:
        """Work on all layers' weights."""
        return sum(self.layer_work(layer) for layer in self.adapted_layers(config))

    def refuse(self, config: Config) -> str:
        """Layers that aren't there, can't be adapted, or whose sizes don't fit; weights that are quantized."""
        field = f"finetune.{self.method}.target_modules"
        found = (self.layer_refused(layer) for layer in self.adapted_layers(config))
        return refused(config, field, self.target_modules) or next(filter(None, found), "") or super().refuse(config)

    def adapted_layers(self, config: Config) -> list[Layer]:
        """Those the adapter sits on."""
        return lora.adapted(config, self.target_modules)


def products(shapes: list[Shape]) -> float:
    """FLOPs of a multiply-add with every number of `shapes`."""
    return 2.0 * sum(map(prod, shapes))
