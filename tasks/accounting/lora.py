"""Exact arithmetic of LoRA (arXiv:2106.09685): which layers peft adapts, how many weights, how many FLOPs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.accounting.anatomy import Block
from tasks.accounting.costs import forward_flops_per_token
from tasks.accounting.readers import read
from tasks.models import Config

AFTER = 1 << 30
"""Block number of the output layer."""


@dataclass(frozen=True)
class Layer:
    """A linear module of the model.

    Attributes:
        name: as peft sees it.
        inputs: columns of the weight.
        outputs: rows of the weight.
        place: block, and place in the block: what data passes first is lower.
    """

    name: str
    inputs: int
    outputs: int
    place: tuple[int, int]

    @property
    def last(self) -> str:
        """Last part of its name."""
        return self.name.rpartition(".")[2]


def linear_layers(config: Config) -> list[Layer]:
    """Every linear module, the output layer last."""
    anatomy = read(config)
    inside = [
        Layer(f"{block.name}.{m.name}", m.inputs, m.outputs, (index, m.order))
        for index, block in enumerate(anatomy.blocks)
        for m in block.matrices
        if m.module
    ]
    return [*inside, Layer(anatomy.head, anatomy.width, anatomy.vocab, (AFTER, 0))]


def adapted(config: Config, target_modules: str | list[str]) -> list[Layer]:
    """The layers peft adapts: `all-linear` (without the output layer), a regular expression, or ends of names."""
    layers = linear_layers(config)
    if target_modules == "all-linear":
        return layers[:-1]
    if isinstance(target_modules, str):
        return [layer for layer in layers if re.fullmatch(target_modules, layer.name)]
    return [layer for layer in layers if any(f".{layer.name}".endswith(f".{name}") for name in target_modules)]


def trainable_parameters(config: Config, r: int, target_modules: str | list[str]) -> int:
    """Weights of the adapter: r x (inputs + outputs) of every adapted layer."""
    return sum(r * (layer.inputs + layer.outputs) for layer in adapted(config, target_modules))


def training_flops_per_token(config: Config, context: int, r: int, target_modules: str | list[str]) -> float:
    """FLOPs of one token's forward and backward pass with the base model frozen.

    Backward through a frozen layer only its input's gradient is computed; the adapter's products all three times. What
    the first adapted layers read doesn't depend on a trained weight, so no gradient flows to it.
    """
    anatomy, chosen = read(config), adapted(config, target_modules)
    forward = forward_flops_per_token(config, context)
    if not chosen:
        return forward
    first = min(layer.place for layer in chosen)
    adapter = sum(_adapter_flops(layer, r, layer.place > first) for layer in chosen)
    through = float(anatomy.head_matrix.flops if first < (AFTER, 0) else 0)
    trained = {layer.last for layer in chosen if layer.place == first}
    for index, block in enumerate(anatomy.blocks):
        through += sum(m.flops for m in block.matrices if (index, m.order) > first)
        through += _mixing_backward(block, index, first, trained, context)
    return forward + through + adapter


def _adapter_flops(layer: Layer, r: int, needs_input_gradient: bool) -> int:
    """Forward, both weights' gradients, the gradient between them, and the input's if it is needed."""
    return 2 * r * ((layer.inputs + layer.outputs) * 2 + layer.outputs + (layer.inputs if needs_input_gradient else 0))


def _mixing_backward(block: Block, index: int, first: tuple[int, int], trained: set[str], context: int) -> float:
    """Backward FLOPs a token's mixing takes in a block, given the first trained layers.

    A block whose input depends on a trained weight computes four halves of its forward products: towards values,
    probabilities, queries and keys. In the first such block, only those on the way to a trained weight.
    """
    half = sum(part.forward_flops(context) for part in block.mixings) / context / 2
    if index != first[0]:
        return 4 * half if index > first[0] else 0.0
    if all(part.order < first[1] for part in block.mixings):
        return 0.0
    fed = set().union(*(_feeds(name) for name in trained))
    return half * (bool(fed & {"q", "k"}) + len(fed))


def _feeds(name: str) -> set[str]:
    """Which of queries, keys and values a projection makes; all three where one matrix makes everything."""
    for start, parts in (("q_", "q"), ("kv_", "kv"), ("k_", "k"), ("v_", "v")):
        if name.startswith(start):
            return set(parts)
    return set("qkv")
