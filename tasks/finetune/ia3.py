"""IA3: keys, values and the feed-forward layer's inside are multiplied by a learned vector each."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tasks.accounting.lora import Layer, linear_layers
from tasks.finetune.shared.on_linear import OnLinear, products
from tasks.finetune.technique import Shape
from tasks.models import Config


class Ia3(OnLinear):
    """Learned scales of keys, values and feed-forward activations (arXiv:2205.05638)."""

    target_modules: str | list[str] = Field(default=["k_proj", "v_proj", "down_proj"])
    """Names of the layers to adapt, or `all-linear`: every linear module but the output layer. Experts are none."""
    feedforward_modules: list[str] = Field(default=["down_proj"])
    """Those of them whose input is scaled instead of their output."""

    config_class: ClassVar[str] = "IA3Config"

    def stands_before(self, layer: Layer) -> bool:
        """Where the input is scaled."""
        return any(f".{layer.name}".endswith(f".{name}") for name in self.feedforward_modules)

    def layer_shapes(self, layer: Layer) -> list[Shape]:
        """(1, inputs) where the input is scaled, (outputs, 1) where the output is."""
        return [(1, layer.inputs) if self.stands_before(layer) else (layer.outputs, 1)]

    def layer_flops(self, layer: Layer, learns: bool) -> float:
        """The scale's gradient is a product that is summed over; scaling itself is element-wise."""
        return products(self.layer_shapes(layer))

    def refuse(self, config: Config) -> str:
        """Layers that aren't there, or are scaled before without being adapted."""
        if wrong := super().refuse(config):
            return wrong
        chosen = self.adapted_layers(config)
        for name in self.feedforward_modules:
            if not any(f".{layer.name}".endswith(f".{name}") for layer in chosen):
                known = ", ".join(sorted({layer.last for layer in linear_layers(config)[:-1]}))
                return (
                    f"finetune.ia3.feedforward_modules: found {name}; finetune.ia3.target_modules adapts no such layer: name "
                    f"it there, too, or leave it out here (this model has {known})"
                )
        return ""
