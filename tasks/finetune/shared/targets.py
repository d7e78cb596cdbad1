"""Which linear layers an adapter sits on, in peft's words, where peft itself would take experts for them."""

from __future__ import annotations

import re
from typing import Any

from tasks.accounting.lora import LEFT_OUT, Layer, adapted, linear_layers
from tasks.models import Config

ALL = "all-linear"


def targets(model: Any, wanted: str | list[str]) -> str | list[str]:
    """`all-linear` spelled out where peft would take it for something else.

    Raises:
        ValueError: a layer is named that can't be adapted in this architecture, or weights are ternary.
    """
    if any(type(module).__name__ == "TernaryLinear" for module in model.modules()):
        raise ValueError("an update merged into ternary weights is rounded away; set finetune.method to full")
    left_out = LEFT_OUT.get(model.config.model_type)
    if left_out is None:
        return wanted
    names = linear_names(model)
    if wanted == ALL:
        return [name for name in names if name.rpartition(".")[2] not in left_out]
    if wrong := sorted({name.rpartition(".")[2] for name in names if _means(wanted, name)} & left_out):
        raise ValueError(f"{', '.join(wrong)} can't be adapted in {model.config.model_type}")
    return wanted


def linear_names(model: Any) -> list[str]:
    """Every linear module but the output layer."""
    import torch

    output = model.get_output_embeddings()
    return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]


def _means(wanted: str | list[str], module: str) -> bool:
    """Whether `wanted` means that module, as peft matches it."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(f".{module}".endswith(f".{name}") for name in wanted)


def refused(config: Config, field: str, wanted: str | list[str]) -> str:
    """What is wrong with `wanted` for a model of this config, for a person; "" if nothing. `field` is its dotted name."""
    if (config.get("quantization_config") or {}).get("quant_method") == "bitnet":
        method = field.split(".")[1]
        return f"finetune.method: found {method}; an update merged into ternary weights is rounded away: set finetune.method to full"
    chosen = adapted(config, wanted)
    left_out = LEFT_OUT.get(config.get("model_type", "llama"), frozenset())
    if wanted != ALL and (wrong := sorted({layer.last for layer in chosen} & left_out)):
        return f"{field}: {', '.join(wrong)} can't be adapted in {config['model_type']}: leave them out, or use all-linear, which does"
    if not chosen:
        known = ", ".join(sorted({layer.last for layer in linear_layers(config)[:-1]}))
        return f"{field}: found {wanted}; no linear layer of this model has that name: {known}"
    return ""


GATE = 16
"""Outputs of a layer that is a gate of heads or experts at most, and no matrix to have a rank."""


def too_large(layers: list[Layer], field: str, rank: int, decomposes: bool) -> str:
    """The first layer that is smaller than a rank, for a person; "" if none is. `field` is the rank's dotted name.

    A gate of a few outputs is no mistake of whoever takes all layers: an adapter fits beside it, if it isn't made from it.
    """
    for layer in layers:
        side = min(layer.inputs, layer.outputs)
        if rank > side and (side > GATE or decomposes):
            return (
                f"{field}: found {rank}; layer {layer.name} has {layer.inputs} inputs and {layer.outputs} outputs: lower it to "
                f"{side}, or leave {layer.last} out of {field.rpartition('.')[0]}.target_modules"
            )
    return ""
