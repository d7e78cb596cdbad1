"""Base model and chat messages in; adapter and merged model out."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.evaluate import Evaluate
from tasks.evaluate.judge import judge
from tasks.finetune import Finetune, chats
from tasks.finetune.fitting import check, fit
from tasks.finetune.technique import Plan, Tuning
from tasks.models.adapter import mark_unmerged
from tasks.models.load import (
    cast,
    check_context,
    copy_model,
    count_parameters,
    load_model,
    load_tokenizer,
    read_config,
    save_model,
    stored_dtype,
    weight_bytes,
    weight_shapes,
)


def run(params: Finetune, *, seed: int, evaluate: Evaluate, data: Path, pretrain: Path, out: Path, job: Job) -> Metrics:
    """Adapt the base model and write the merged model at the root of `out`, the adapter (if any) in `out/adapter`.

    Raises:
        UserError: no chat fits, no chat template, or the technique doesn't fit the model.
    """
    tokenizer = load_tokenizer(pretrain)
    if params.steps:
        metrics = _train(params, seed, data, pretrain, tokenizer, out, job)
    else:
        copy_model(pretrain, out)
        metrics = {"trainable_parameters": counted(0), "parameters": counted(count_parameters(load_model(out)))}
    metrics |= judge(out, data, evaluate, job)
    return {"delivery_bytes": counted(weight_bytes(out), "weights")} | metrics


def _train(params: Finetune, seed: int, data: Path, pretrain: Path, tokenizer: Any, out: Path, job: Job) -> Metrics:
    import torch

    train, held = chats_of(params, data, tokenizer)
    check_context("finetune.context_length", params.context_length, pretrain)
    technique, kept, config = params.technique, stored_dtype(pretrain), read_config(pretrain)
    check(params, config, held)
    size = sum(map(prod, weight_shapes(config).values()))
    base = technique.load(pretrain)
    torch.manual_seed(seed)
    tuning = _begin(params, base, Plan(pretrain, job.work, params.steps, seed, params.optimizer.technique))
    metrics = fit(tuning, params, seed, config, train, held, job)
    metrics["trainable_parameters"] = replace(metrics["trainable_parameters"], note=f"beside {size:,} of the model")
    metrics["parameters"] = counted(size)
    metrics["chats_dropped"] = counted(
        train.too_long + train.without_answer + train.refused,
        f"{train.too_long} too long, {train.without_answer} without an answer, {train.refused} refused by the template",
    )
    return metrics | _save(tuning, kept, pretrain, tokenizer, out)


def chats_of(params: Finetune, data: Path, tokenizer: Any) -> tuple[chats.Chats, chats.Chats]:
    """Those to train on and those to validate with."""
    train, held = (
        chats.read(data / "instructions" / f"{split}.jsonl", tokenizer, params.context_length)
        for split in ("train", "validation")
    )
    if not train.examples:
        raise UserError(
            f"finetune: no chat to train on ({train.too_long} longer than finetune.context_length "
            f"{params.context_length} tokens, {train.without_answer} without an answer, {train.refused} refused by the chat template)",
            "raise finetune.context_length, or give data.source records with 'messages' or Python files",
        )
    return train, held


def _begin(params: Finetune, base: Any, plan: Plan) -> Tuning:
    import torch

    try:
        made: Tuning = params.technique.begin(base, plan)
    except ValueError as error:
        layers = {name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
        raise UserError(
            f"finetune.{params.method} doesn't fit this model: {error}",
            f"its linear layers: {', '.join(sorted(layers))}",
        ) from None
    return made


def _save(tuning: Tuning, dtype: Any, pretrain: Path, tokenizer: Any, out: Path) -> Metrics:
    """The adapter, if any, in `out/adapter`, and at the root a model that needs nothing else."""
    beside = tuning.write(out / "adapter")
    merged = tuning.merged()
    if merged is not None:
        save_model(cast(merged, dtype), tokenizer, out)
    else:
        copy_model(pretrain, out)
        mark_unmerged(out)
    if not beside:
        return {}
    size = weight_bytes(out / "adapter")
    return {"adapter_bytes": counted(size), "delivery_bytes": counted(size, "adapter alone")}
