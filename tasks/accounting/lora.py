"""Exact arithmetic of adapters on a frozen model, LoRA (arXiv:2106.09685) first: which layers, how many weights, FLOPs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tasks.accounting.anatomy import Anatomy, Block, Mixing, backward_flops
from tasks.accounting.attention import Attention
from tasks.accounting.costs import forward_flops_per_token
from tasks.accounting.readers import read
from tasks.models import Config

AFTER = 1 << 30
"""Block number of the output layer."""

MLP = frozenset({"gate_proj", "up_proj", "down_proj"})

LEFT_OUT: dict[str, frozenset[str]] = {
    "mixtral": MLP,
    "olmoe": MLP,
    "qwen3_moe": MLP,
    "qwen3_next": MLP,
    "deepseek_v3": MLP,
    "mamba2": frozenset({"out_proj"}),
    "bamba": frozenset({"out_proj"}),
}
"""Model type -> linear modules that can't be adapted. In five, peft takes these names, also when it loads an adapter, for
those of experts, which lie in one tensor; fused kernels of the other two read the bare weight, past any adapter."""


@dataclass(frozen=True)
class Layer:
    """A linear module of the model.

    Attributes:
        name: as peft sees it.
        inputs: columns of the weight.
        outputs: rows of the weight.
        place: block, and place in the block: what data passes first is lower.
        way: branch it lies on where the block forks, as in `Matrix`.
    """

    name: str
    inputs: int
    outputs: int
    place: tuple[int, int]
    way: str = ""

    @property
    def last(self) -> str:
        """Last part of its name."""
        return self.name.rpartition(".")[2]


def linear_layers(config: Config) -> list[Layer]:
    """Every linear module, the output layer last."""
    anatomy = read(config)
    inside = [
        Layer(f"{block.name}.{m.name}", m.inputs, m.outputs, (index, m.order), m.way)
        for index, block in enumerate(anatomy.blocks)
        for m in block.matrices
        if m.module
    ]
    return [*inside, Layer(anatomy.head, anatomy.width, anatomy.vocab, (AFTER, 0))]


def adapted(config: Config, target_modules: str | list[str]) -> list[Layer]:
    """The layers peft adapts: `all-linear` (without the output layer), a regular expression, or ends of names."""
    layers = linear_layers(config)
    if target_modules == "all-linear":
        left_out = LEFT_OUT.get(config.get("model_type", "llama"), frozenset())
        return [layer for layer in layers[:-1] if layer.last not in left_out]
    if isinstance(target_modules, str):
        return [layer for layer in layers if re.fullmatch(target_modules, layer.name)]
    return [layer for layer in layers if any(f".{layer.name}".endswith(f".{name}") for name in target_modules)]


def trainable_parameters(config: Config, r: int, target_modules: str | list[str]) -> int:
    """Weights of the adapter: r x (inputs + outputs) of every adapted layer."""
    return sum(r * (layer.inputs + layer.outputs) for layer in adapted(config, target_modules))


def head_flops(config: Config) -> int:
    """FLOPs of one token's logits."""
    return read(config).head_matrix.flops


def training_flops_per_token(config: Config, context: int, r: int, target_modules: str | list[str]) -> float:
    """FLOPs of one token's forward and backward pass under LoRA; the adapter's products are computed all three times."""
    return frozen_flops_per_token(
        config, context, adapted(config, target_modules), lambda layer, learns: _adapter_flops(layer, r, learns)
    )


def frozen_flops_per_token(
    config: Config,
    context: int,
    trained: list[Layer],
    adapter: Callable[[Layer, bool], float],
    before: Collection[str] = (),
) -> float:
    """FLOPs of one token's forward and backward pass with the base model frozen.

    Backward through a frozen layer only its input's gradient is computed. What the first adapted layers read doesn't
    depend on a trained weight, so no gradient flows to it.

    Args:
        config: a transformers config.
        context: tokens of a sequence.
        trained: places of trained weights: what is read behind them depends on them.
        adapter: FLOPs of a token at such a place, beside the model's own; told whether what is read there depends on a
            trained weight.
        before: names of layers that read what an adapter made, so that they always hand a gradient back.
    """
    anatomy = read(config)
    forward = forward_flops_per_token(config, context)
    if not trained:
        return forward
    first = min(layer.place for layer in trained)
    start = [layer for layer in trained if layer.place[0] == first[0]]
    beside = sum(adapter(layer, _learns(anatomy, start, layer.place, layer.way)) for layer in trained)
    through = float(anatomy.head_matrix.flops if first < (AFTER, 0) else 0)
    for index, block in enumerate(anatomy.blocks):
        for matrix in block.matrices:
            read_late = _learns(anatomy, start, (index, matrix.order), matrix.way)
            through += matrix.flops if read_late or f"{block.name}.{matrix.name}" in before else 0
        if index >= first[0]:
            through += _mixing_backward(block, start if index == first[0] else None, context)
    return forward + through + beside


def repeated_flops_per_token(config: Config, target_modules: str | list[str]) -> float:
    """FLOPs of computing the adapted layers' frozen products a second time, forward and backward."""
    anatomy, chosen = read(config), adapted(config, target_modules)
    if not chosen:
        return 0.0
    first = min(layer.place for layer in chosen)
    start = [layer for layer in chosen if layer.place[0] == first[0]]
    return sum(
        2.0 * layer.inputs * layer.outputs * (1 + _learns(anatomy, start, layer.place, layer.way)) for layer in chosen
    )


def _learns(anatomy: Anatomy, start: list[Layer], place: tuple[int, int], way: str) -> bool:
    """Whether what is read at a place depends on a trained weight; `start`: the trained layers of the first block.

    Inside that block two branches know nothing of each other until a mixing brings them together.
    """
    index = start[0].place[0]
    if place[0] != index or index == AFTER:
        return place[0] > index
    meetings = [part.order for part in anatomy.blocks[index].mixings]
    return any(
        layer.place < place
        and (way == layer.way or not (way and layer.way) or any(layer.place[1] < m < place[1] for m in meetings))
        for layer in start
    )


def _adapter_flops(layer: Layer, r: int, needs_input_gradient: bool) -> int:
    """Forward, both weights' gradients, the gradient between them, and the input's if it is needed."""
    return 2 * r * ((layer.inputs + layer.outputs) * 2 + layer.outputs + (layer.inputs if needs_input_gradient else 0))


def _mixing_backward(block: Block, start: list[Layer] | None, context: int) -> float:
    """Backward FLOPs a token's mixing takes in a block that has a trained weight in or before it.

    A block whose input depends on a trained weight (`start` is None) computes all of its backward products: towards
    values, probabilities, queries and keys. The first such block only those on the way to one of its trained layers.
    """
    if start is None:
        return sum(backward_flops(part, context, trained=False) for part in block.mixings) / context
    total = 0.0
    for part in block.mixings:
        fed = set().union(*(_feeds(layer.last) for layer in start if layer.place[1] <= part.order))
        total += _towards(part, fed, context)
    return total


def _towards(part: Mixing, fed: set[str], context: int) -> float:
    """Backward FLOPs a token's mixing takes on the way to some of queries, keys and values."""
    whole = backward_flops(part, context, trained=False) / context / 2
    keys = whole / 2
    if isinstance(part, Attention):
        keys = whole * part.key_size / (part.key_size + part.value_size)
    values = whole - keys
    probabilities = values if fed & {"q", "k"} else 0.0
    return probabilities + values * ("v" in fed) + keys * (("q" in fed) + ("k" in fed))


def _feeds(name: str) -> set[str]:
    """Which of queries, keys and values a projection makes; all three where one matrix makes everything."""
    for start, parts in (("q_", "q"), ("kv_", "kv"), ("k_", "k"), ("v_", "v")):
        if name.startswith(start):
            return set(parts)
    return set("qkv")
