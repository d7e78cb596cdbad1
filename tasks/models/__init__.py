"""Checkpoints: load and save a model folder, count what is in it."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]
"""A transformers config, as in config.json."""


DEFAULT_CONTEXT = 1024
"""Tokens at which costs are given for a model whose config has no longest context."""


def positions(config: Config) -> int | None:
    """Longest context in tokens that a config allows, whatever its family calls it; None: no limit."""
    return config.get("max_position_embeddings") or config.get("context_length")


def experts(config: Config) -> tuple[int, int]:
    """Experts of a layer, and how many of them a token passes; (0, 0) of a dense model."""
    count = next(
        (config[name] for name in ("num_local_experts", "num_experts", "n_routed_experts") if config.get(name)), 0
    )
    dense = config.get("first_k_dense_replace", 0) >= config.get("num_hidden_layers", 1)
    return (0, 0) if dense or not count else (int(count), int(config["num_experts_per_tok"]))
