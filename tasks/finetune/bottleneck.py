"""Houlsby's adapters: a thin layer down and one up again behind the attention and behind the feed-forward layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from tasks.accounting.lora import LEFT_OUT, Layer, frozen_flops_per_token, head_flops, linear_layers
from tasks.finetune.technique import FinetuneTechnique, Plan, Shape, Tuning
from tasks.models import Config, bottleneck

BEHIND = {"mh_adapter": ("o_proj",), "output_adapter": ("down_proj",)}
"""Field -> names of the linear modules that end that part of a block."""


class BottleneckTuning(Tuning):
    """A model with adapters at work."""

    def __init__(self, model: Any, **made: Any) -> None:
        super().__init__(model)
        self._made = made

    def write(self, folder: Path) -> bool:
        """The adapters alone."""
        bottleneck.save(self.model, folder, **self._made)
        return True

    def merged(self) -> Any | None:
        """There is a bend between the two layers, so no weight can stand for them."""
        return None


class Bottleneck(FinetuneTechnique):
    """Small networks behind attention and feed-forward layers (arXiv:1902.00751)."""

    reduction_factor: int = Field(default=16, ge=2)
    """The adapter is as wide as the model divided by this."""
    non_linearity: Literal["relu", "gelu", "silu"] = "relu"
    """What bends between its two layers."""
    mh_adapter: bool = True
    """Whether there is one behind the attention."""
    output_adapter: bool = True
    """Whether there is one behind the feed-forward layer."""

    merges: ClassVar[bool] = False
    beside_bits: ClassVar[bool] = True

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """`base`, frozen, with adapters that change nothing yet."""
        config = base.config.to_dict()
        made: dict[str, Any] = {"size": self._size(config), "non_linearity": self.non_linearity}
        made["layers"] = [layer.name for layer in self.adapted_layers(config)]
        bottleneck.attach(base, **made)
        return BottleneckTuning(base, **made)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Both layers of every adapter, with their biases."""
        size = self._size(config)
        return [
            shape
            for layer in self.adapted_layers(config)
            for shape in ((size, layer.outputs), (size,), (layer.outputs, size), (layer.outputs,))
        ]

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """What is trained is what is delivered."""
        return self.trained_shapes(config)

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's; the adapter's layers forward, their weights' gradients, and what flows back."""
        size = self._size(config)
        whole = frozen_flops_per_token(
            config,
            context,
            self.adapted_layers(config),
            lambda layer, learns: 2.0 * size * layer.outputs * (6 if learns else 5),
        )
        return whole - 2 * head_flops(config) * (1 - labelled)

    def refuse(self, config: Config) -> str:
        """Models without those layers, no place chosen, or weights quantized by another library than bitsandbytes."""
        if self.adapted_layers(config):
            return super().refuse(config)
        if not (self.mh_adapter or self.output_adapter):
            return "finetune.bottleneck: mh_adapter and output_adapter are both false, so nothing is trained: set one to true"
        known = ", ".join(sorted({layer.last for layer in linear_layers(config)[:-1]}))
        names = " or ".join(name for field, behind in BEHIND.items() if getattr(self, field) for name in behind)
        return (
            f"finetune.method: found bottleneck; its adapters stand behind {names}, which this model hasn't got as layers of "
            f"their own ({known}): choose another method"
        )

    def adapted_layers(self, config: Config) -> list[Layer]:
        """Those the adapter sits on."""
        left_out = LEFT_OUT.get(config.get("model_type", "llama"), frozenset())
        names = {name for field, behind in BEHIND.items() if getattr(self, field) for name in behind} - left_out
        return [layer for layer in linear_layers(config) if layer.last in names]

    def _size(self, config: Config) -> int:
        return max(1, int(config["hidden_size"]) // self.reduction_factor)
