"""An architecture in; `blueprint.json`, a transformers config, and its exact costs out."""

from __future__ import annotations

import json
from pathlib import Path

from tasks import accounting
from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.design import Design


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
    size = accounting.parameters(config)
    context = config["max_position_embeddings"]
    job.say(f"{params.method}, {size:,} parameters")
    at_full = f"context of {context} tokens"
    return {
        "parameters": counted(size),
        "active_parameters": counted(size),
        "forward_flops_per_token": counted(accounting.forward_flops_per_token(config, context), at_full),
        "training_flops_per_token": counted(accounting.training_flops_per_token(config, context), at_full),
        "decode_flops_per_token": counted(accounting.decode_flops_per_token(config, context), at_full),
        "kv_cache_bytes_per_token": counted(accounting.kv_cache_bytes_per_token(config), "2 bytes an element"),
        "model_bytes/float32": counted(4 * size, "weights alone"),
        "model_bytes/bfloat16": counted(2 * size, "weights alone"),
    }
