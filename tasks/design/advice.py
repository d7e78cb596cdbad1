"""What a design is warned of: nothing here stops a run, and each sentence says which later technique it hits."""

from __future__ import annotations

from collections import defaultdict

from tasks.accounting import embedding_parameters, parameters
from tasks.accounting.lora import linear_layers
from tasks.models import Config, experts, positions

GROUPS = {
    32: "llama.cpp's Q4_0 and Q8_0",
    64: "bitsandbytes' 4-bit",
    128: "group-wise 4-bit such as GPTQ and AWQ",
    256: "llama.cpp's k-quants",
}
"""Weights that share a scale -> whose they are."""


def warnings(config: Config) -> list[str]:
    """Sentences about a config that is allowed and likely not meant."""
    return [*_widths(config), *_vocabulary(config), *_unbalanced(config), *_window(config)]


def _widths(config: Config) -> list[str]:
    """One sentence per width that some group size doesn't divide; a smaller group that fails says it for the larger."""
    layers: dict[int, set[str]] = defaultdict(set)
    for layer in linear_layers(config)[:-1]:
        layers[layer.inputs].add(layer.last)
    found = []
    for width, names in sorted(layers.items()):
        failing = [size for size in GROUPS if width % size]
        if failing:
            hit = "; ".join(f"{size} ({GROUPS[size]})" for size in failing)
            verb = "reads" if len(names) == 1 else "read"
            found.append(f"{', '.join(sorted(names))} {verb} {width} numbers, which is no multiple of {hit}")
    return found


def _vocabulary(config: Config) -> list[str]:
    table, size = embedding_parameters(config), parameters(config)
    if 2 * table <= size:
        return []
    return [
        f"the vocabulary is larger than the model: {table:,} of {size:,} parameters are embeddings, which adapters and "
        "quantizers of linear layers leave alone; lower data.tokenizer.train.vocab_size or design a larger model"
    ]


def _unbalanced(config: Config) -> list[str]:
    count, _ = experts(config)
    if not count or config.get("model_type") == "deepseek_v3" or config.get("router_aux_loss_coef"):
        return []
    return [f"nothing keeps the {count} experts equally busy: router_aux_loss_coef is 0, so a few may get all tokens"]


def _window(config: Config) -> list[str]:
    window, limit = config.get("sliding_window"), positions(config)
    if not window or not limit or window < limit:
        return []
    return [f"sliding_window {window} holds all {limit} positions: it saves neither cache nor computation"]
