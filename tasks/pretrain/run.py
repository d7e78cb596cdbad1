"""Blueprint (or an existing model) and token shards in; base model out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.evaluate import Evaluate
from tasks.evaluate.judge import judge
from tasks.models.device import resolve_precision
from tasks.models.load import (
    cast,
    check_context,
    copy_model,
    count_parameters,
    has_weights,
    load_model,
    load_tokenizer,
    new_model,
    read_config,
    save_model,
    weight_bytes,
    weight_shapes,
)
from tasks.pretrain import Pretrain
from tasks.pretrain.batches import Batches, Shard
from tasks.training.loop import Loop
from tasks.training.settings import Settings

VALIDATION_SEQUENCES = 64


def run(
    params: Pretrain, *, seed: int, evaluate: Evaluate, data: Path, design: Path, init: Path, out: Path, job: Job
) -> Metrics:
    """Train the blueprint, from scratch or on from `init`, and write a complete model folder.

    Raises:
        UserError: `init` isn't the model of the blueprint, or the context is longer than its positions.
    """
    tokenizer = load_tokenizer(data / "tokenizer")
    model, dtype = _start(params, seed, tokenizer, design, init)
    if params.steps:
        check_context("pretrain.context_length", params.context_length, design)
    check_context("evaluate.context_length", evaluate.context_length, design)
    metrics: Metrics = {"parameters": counted(count_parameters(model))}
    if params.steps:
        metrics |= _train(model, params, seed, data, job)
        save_model(cast(model, dtype), tokenizer, out)
    elif has_weights(init):
        copy_model(init, out)
    else:
        save_model(model, tokenizer, out)
    del model  # its memory is the next one's
    metrics |= judge(out, data, evaluate, job)
    return metrics | {"delivery_bytes": counted(weight_bytes(out), "weights")}


def _start(params: Pretrain, seed: int, tokenizer: Any, design: Path, init: Path) -> tuple[Any, Any]:
    """The model to train in float32, and the dtype it is kept in."""
    import torch

    blueprint = read_config(design)
    if not has_weights(init):
        if init.is_file() or (init / "config.json").exists():
            raise UserError(
                f"pretrain.init '{init}': a model without weights (*.safetensors)",
                "name the model's folder; pickled and GGUF weights are not read: convert them first",
            )
        return new_model(blueprint, seed), torch.float32
    if weight_shapes(read_config(init)) != weight_shapes(blueprint):
        raise UserError(
            f"pretrain.init '{init}' holds weights of another shape than the blueprint",
            "set design.method to existing, or pretrain.init to data/none",
        )
    if (init / "tokenizer.json").exists() and load_tokenizer(init).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"data.tokenizer is not the tokenizer of pretrain.init '{init}': its weights would see foreign ids",
            "set data.tokenizer.method to pretrained",
        )
    model = load_model(init)
    dtype = model.dtype
    return (model.float() if params.steps else model), dtype


def _train(model: Any, params: Pretrain, seed: int, data: Path, job: Job) -> Metrics:
    import torch

    from tasks.models.device import autocast
    from tasks.training.loss import next_token_loss

    precision = resolve_precision(params.precision)
    train = Shard(data, "train", params.context_length, model.device)
    validation = Shard(data, "validation", params.context_length, model.device)
    held = list(range(min(validation.sequences, VALIDATION_SEQUENCES)))

    def validate() -> float:
        model.eval()
        parts = [held[at : at + params.batch_size] for at in range(0, len(held), params.batch_size)]
        with torch.inference_mode(), autocast(precision):
            losses = [float(next_token_loss(model, *validation.take(part))) * len(part) for part in parts]
        return sum(losses) / len(held)

    model.requires_grad_(True)
    settings = settings_of(params, seed, precision)
    batches = Batches(train, params.sampling, params.batch_size, params.steps, seed)
    loop = Loop(model, batches.batch, settings, job, validate)
    return loop.run() | {"validation_loss": measured(validate(), f"{len(held)} sequences")}


SAME = (
    "steps",
    "learning_rate",
    "schedule",
    "weight_decay",
    "max_grad_norm",
    "checkpoint_every",
    "keep_checkpoints",
    "eval_every",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "spikes",
)
"""Parameters the loop takes as they are."""


def settings_of(params: Pretrain, seed: int, precision: str) -> Settings:
    """What the loop is told of `params`."""
    return Settings(
        **{name: getattr(params, name) for name in SAME},
        precision=precision,
        seed=seed,
        optimizer=params.optimizer.technique,
        objective=params.objective.technique,
    )
