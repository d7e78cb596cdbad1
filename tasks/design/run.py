"""An architecture in; `blueprint.json`, a transformers config, and its exact costs out."""

from __future__ import annotations

import json
from pathlib import Path

from tasks import accounting
from tasks.accounting.memory import CHECKPOINTING, activation_bytes
from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, modelled
from tasks.design import Design
from tasks.design.advice import warnings
from tasks.models import DEFAULT_CONTEXT, Config, positions

MOMENTS = 8
"""Bytes AdamW keeps of a parameter: two float32 moments."""


def run(params: Design, *, data: Path, init: Path, out: Path, job: Job) -> Metrics:
    """Write the blueprint.

    Raises:
        UserError: the sizes can't be had with this vocabulary.
    """
    vocab_size = json.loads((data / "shards.json").read_text(encoding="utf-8"))["vocab_size"]
    try:
        config = params.technique.blueprint(vocab_size, init)
    except ValueError as error:
        raise UserError(f"design.{params.method}: {error}") from None
    (out / "blueprint.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    job.say(f"{params.method}, {accounting.parameters(config):,} parameters")
    for sentence in warnings(config):
        job.say(f"note: {sentence}")
    return costs(config)


def costs(config: Config) -> Metrics:
    """What a model costs whoever trains or runs it, exact but for activations: FLOPs and bytes of a full context."""
    size, context = accounting.parameters(config), positions(config) or DEFAULT_CONTEXT
    at_full = f"context of {context} tokens"
    one = f"one sequence, {at_full}, float32"
    return {
        "parameters": counted(size),
        "active_parameters": counted(accounting.active_parameters(config)),
        "embedding_parameters": counted(accounting.embedding_parameters(config)),
        "forward_flops_per_token": counted(accounting.forward_flops_per_token(config, context), at_full),
        "training_flops_per_token": counted(accounting.training_flops_per_token(config, context), at_full),
        "decode_flops_per_token": counted(accounting.decode_flops_per_token(config, context), at_full),
        "kv_cache_bytes_per_token": counted(accounting.kv_cache_bytes_per_token(config), "2 bytes an element"),
        "cache_bytes": counted(accounting.cache_bytes(config, context), f"{at_full}, 2 bytes an element"),
        "model_bytes/float32": counted(4 * size, "weights alone"),
        "model_bytes/bfloat16": counted(2 * size, "weights alone"),
        "optimizer_bytes": counted(MOMENTS * size, "every weight trained by AdamW"),
        "checkpoint_bytes": counted((4 + MOMENTS) * size, "float32 weights and AdamW's moments"),
        **{
            f"activation_bytes/{way}": modelled(activation_bytes(config, context, way, element=4), one)
            for way in CHECKPOINTING
        },
    }
