"""Virtual tokens in front of every text, or keys and values in their place: the base itself stays as it is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

from pydantic import PositiveInt

from tasks.accounting import read
from tasks.accounting.attention import Attention
from tasks.accounting.lora import Layer, frozen_flops_per_token, head_flops
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.technique import Shape
from tasks.models import Config, positions

FRONT = [Layer("embedding", 0, 0, (-1, 0))]
"""Where everything depends on what is trained."""


class SoftPrompt(PeftTechnique):
    """What is learned stands in front of every text."""

    num_virtual_tokens: PositiveInt = 20
    """Virtual tokens in front of every text; they take that many of the model's positions."""

    merges: ClassVar[bool] = False
    beside_bits: ClassVar[bool] = True
    packs: ClassVar[bool] = False

    @property
    def positions(self) -> int:
        """The virtual tokens'."""
        return self.num_virtual_tokens

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """What the virtual tokens have become, whatever made them."""
        return [(self.num_virtual_tokens, config["hidden_size"])]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The frozen model's of all tokens, virtual ones too, which have no logits."""
        tokens, head = context + self.num_virtual_tokens, 2 * head_flops(config)
        body = frozen_flops_per_token(config, tokens, FRONT, lambda *_: 0.0) - head
        return tokens * body / context + head * labelled

    def refuse(self, config: Config) -> str:
        """Models that keep no keys and values, have too few positions, or were quantized by another library than bitsandbytes."""
        kinds = {type(part) for block in read(config).blocks for part in block.mixings}
        if kinds != {Attention}:
            return (
                f"finetune.method: found {self.method}; {config['model_type']} doesn't keep keys and values in every layer, where "
                "virtual tokens are seen: choose a method that adapts weights, such as lora"
            )
        limit = positions(config)
        if limit and self.num_virtual_tokens >= limit:
            return (
                f"finetune.{self.method}.num_virtual_tokens: found {self.num_virtual_tokens}; the model has {limit} positions, "
                "and the text needs some: lower it"
            )
        return super().refuse(config)


def encoder_shapes(first: int, inner: int, last: int, hidden: int) -> list[Shape]:
    """Weights and biases of linear layers: `first` wide in, `hidden` inner ones more, `last` wide out."""
    widths = [first, *([inner] * (hidden + 1)), last]
    pairs = pairwise(widths)
    return [shape for inputs, outputs in pairs for shape in ((outputs, inputs), (outputs,))]


def encoder_flops(tokens: int, shapes: list[Shape]) -> float:
    """FLOPs of `tokens` rows through weights of those shapes, forward and both gradients."""
    return sum(6.0 * tokens * shape[0] * shape[1] for shape in shapes if len(shape) == 2)


def peft_made(name: str, technique: SoftPrompt, **more: Any) -> Any:
    """The peft config `name`, made of the technique's fields."""
    import peft

    return getattr(peft, name)(task_type="CAUSAL_LM", **(technique.model_dump() | more))
