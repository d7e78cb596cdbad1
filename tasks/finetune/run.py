"""Base model and rows to learn from in; adapter and merged model out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.evaluate import Evaluate, harness
from tasks.evaluate.judge import judge
from tasks.finetune import Finetune
from tasks.finetune.fitting import check, fit, given
from tasks.finetune.lesson import Lesson
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
        UserError: nothing to learn from, no chat template, or technique or objective don't fit the model, or a task of
            `evaluate` can't be had.
    """
    harness.prepare(evaluate)
    tokenizer = load_tokenizer(pretrain)
    if params.steps:
        metrics = _train(params, seed, data, pretrain, tokenizer, out, job)
    else:
        copy_model(pretrain, out)
        metrics = {"trainable_parameters": counted(0), "parameters": counted(count_parameters(load_model(out)))}
    metrics |= judge(out, data, evaluate, job, before=pretrain)
    return {"delivery_bytes": counted(weight_bytes(out), "weights")} | metrics


def _train(params: Finetune, seed: int, data: Path, pretrain: Path, tokenizer: Any, out: Path, job: Job) -> Metrics:
    import torch

    technique, kept, config = params.technique, stored_dtype(pretrain), read_config(pretrain)
    check(params, config)
    load = partial(technique.load, pretrain)
    lesson = params.objective.technique.lesson(given(params, config, data, tokenizer, seed, job, load))
    check_context("finetune.context_length", params.context_length, pretrain)
    size = sum(map(prod, weight_shapes(technique.config_after(config)).values()))
    base = load()
    lesson.meet(base)
    torch.manual_seed(seed)
    plan = Plan(pretrain, job.work, params.steps, seed, params.optimizer.technique)
    tuning = _begin(params, base, plan, lesson)
    metrics = fit(tuning, params, seed, lesson, job)
    metrics["trainable_parameters"] = replace(metrics["trainable_parameters"], note=f"beside {size:,} of the model")
    metrics["parameters"] = counted(size)
    metrics |= lesson.metrics()
    return metrics | _save(tuning, kept, pretrain, tokenizer, out)


def _begin(params: Finetune, base: Any, plan: Plan, lesson: Lesson) -> Tuning:
    """The technique at work on the base, and the objective on what it made."""
    import torch

    layers = {name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
    try:
        made: Tuning = params.technique.begin(base, plan)
    except ValueError as error:
        raise UserError(
            f"finetune.{params.method} doesn't fit this model: {error}",
            f"its linear layers: {', '.join(sorted(layers))}",
        ) from None
    try:
        lesson.begin(made.model)
    except ValueError as error:
        chosen = params.objective.method
        raise UserError(
            f"finetune.objective.{chosen} can't train what finetune.{params.method} made: {error}",
            "choose another finetune.objective.method or finetune.method",
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
