"""Model type -> how to read its config: what transformers will build from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

from tasks.accounting.anatomy import Anatomy
from tasks.accounting.delta import qwen3_next
from tasks.accounting.dense import bitnet, llama
from tasks.accounting.experts import mixtral, olmoe, qwen2_moe, qwen3_moe
from tasks.accounting.latent import deepseek_v3
from tasks.accounting.mamba import bamba, mamba2
from tasks.accounting.rwkv import rwkv
from tasks.accounting.sliding import gemma2, gemma3_text, mistral, olmo3, qwen2, qwen3, smollm3
from tasks.models import Config

READERS: dict[str, Callable[[Config], Anatomy]] = {
    "llama": llama,
    "mistral": mistral,
    "olmo3": olmo3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "smollm3": smollm3,
    "gemma2": gemma2,
    "gemma3_text": gemma3_text,
    "deepseek_v3": deepseek_v3,
    "mixtral": mixtral,
    "olmoe": olmoe,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "mamba2": mamba2,
    "bamba": bamba,
    "qwen3_next": qwen3_next,
    "rwkv": rwkv,
    "bitnet": bitnet,
}
"""transformers' `model_type` -> reader."""


def read(config: Config) -> Anatomy:
    """The anatomy of a config.

    Raises:
        ValueError: no reader knows its model type.
    """
    kind = config.get("model_type", "llama")
    if kind not in READERS:
        raise ValueError(f"model type '{kind}' cannot be accounted for; known: {', '.join(sorted(READERS))}")
    return _read(kind, json.dumps(config, sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _read(kind: str, config: str) -> Anatomy:
    """By the config's text: a plan asks for the same anatomy again and again."""
    return READERS[kind](json.loads(config))
