"""Exact arithmetic of LoRA from a transformers config: which layers are adapted, how many weights, how many FLOPs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.models.accounting import Config, Shape, forward_flops_per_token

ATTENTION, FEED_FORWARD = "self_attn", "mlp"


@dataclass(frozen=True)
class Layer:
    """A linear layer of the model: its name as peft sees it, and its sizes."""

    name: str
    inputs: int
    outputs: int


def linear_layers(config: Config) -> list[Layer]:
    """Every linear layer of a Llama-like model, the output layer last."""
    shape = Shape.of(config)
    sizes = {
        f"{ATTENTION}.q_proj": (shape.width, shape.query),
        f"{ATTENTION}.k_proj": (shape.width, shape.key_value),
        f"{ATTENTION}.v_proj": (shape.width, shape.key_value),
        f"{ATTENTION}.o_proj": (shape.query, shape.width),
        f"{FEED_FORWARD}.gate_proj": (shape.width, shape.inner),
        f"{FEED_FORWARD}.up_proj": (shape.width, shape.inner),
        f"{FEED_FORWARD}.down_proj": (shape.inner, shape.width),
    }
    blocks = [
        Layer(f"model.layers.{index}.{name}", *size) for index in range(shape.layers) for name, size in sizes.items()
    ]
    return [*blocks, Layer("lm_head", shape.width, shape.vocab)]


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
    shape = Shape.of(config)
    layers, chosen = linear_layers(config), adapted(config, target_modules)
    if not chosen:
        return forward_flops_per_token(config, context)
    first = _first_trained(chosen)
    products = 2 * (shape.linear + shape.vocab * shape.width)
    scores = 4 * shape.query * context
    forward = products + shape.layers * scores
    through = sum(2 * layer.inputs * layer.outputs for layer in layers if _reached(layer, first))
    adapter = sum(_adapter_flops(layer, r, _reached(layer, first)) for layer in chosen)
    return float(forward + through + scores * _scores_backward(shape, chosen, first) / 2 + adapter)


def _adapter_flops(layer: Layer, r: int, needs_input_gradient: bool) -> int:
    """Forward, both weights' gradients, the gradient between them, and the input's if it is needed."""
    return 2 * r * ((layer.inputs + layer.outputs) * 2 + layer.outputs + (layer.inputs if needs_input_gradient else 0))


ORDER = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1, "gate_proj": 2, "up_proj": 2, "down_proj": 3}
"""Layers of a block in the order data passes them; those of one number read the same input."""


def _position(layer: Layer) -> tuple[int, int]:
    """Block and place in the block; the output layer comes after every block."""
    if layer.name == "lm_head":
        return (1 << 30, 0)
    parts = layer.name.split(".")
    return int(parts[2]), ORDER[parts[-1]]


def _first_trained(chosen: list[Layer]) -> tuple[int, int]:
    return min(_position(layer) for layer in chosen)


def _reached(layer: Layer, first: tuple[int, int]) -> bool:
    """Whether the layer's input depends on a trained weight."""
    return _position(layer) > first


def _scores_backward(shape: Shape, chosen: list[Layer], first: tuple[int, int]) -> int:
    """Products of the size of half a block's score arithmetic that the backward pass computes.

    A block whose input depends on a trained weight has four: towards values, probabilities, queries and keys.
    """
    block, place = first
    whole = 4 * max(0, shape.layers - block - 1)
    if place > 0:
        return whole
    trained = {layer.name.rpartition(".")[2] for layer in chosen if _position(layer) == first}
    probabilities = bool(trained & {"q_proj", "k_proj"})
    return whole + probabilities + len(trained & {"q_proj", "k_proj", "v_proj"})
