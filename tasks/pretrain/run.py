"""Blueprint (or an existing model) and token shards in; base model out."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.evaluate import Evaluate, harness
from tasks.evaluate.judge import judge
from tasks.models.load import (
    cast,
    check_context,
    copy_model,
    count_parameters,
    has_weights,
    load_tokenizer,
    save_model,
    weight_bytes,
)
from tasks.pretrain import Pretrain, workers
from tasks.pretrain.conflicts import conflicts
from tasks.pretrain.teacher import chosen_teacher, loyalty
from tasks.pretrain.training import start, train


def run(
    params: Pretrain,
    *,
    seed: int,
    evaluate: Evaluate,
    data: Path,
    design: Path,
    init: Path,
    teacher: Path | None = None,
    out: Path,
    job: Job,
) -> Metrics:
    """Train the blueprint, from scratch or on from `init`, alone or after `teacher`, and write a complete model folder.

    Raises:
        UserError: `init` isn't the model of the blueprint, `teacher` not one the objective can learn from, workers can't
            share the work, or what `_refuse` finds.
    """
    _refuse(params, evaluate, design)
    tokenizer = load_tokenizer(data / "tokenizer")
    teacher = chosen_teacher(params, evaluate, tokenizer, teacher)
    shared = params.steps and params.parallel.workers > 1
    metrics: Metrics = {}
    if shared:  # before this process has a model of its own
        metrics = workers.train(params, seed, workers.Inputs(data, design, init, teacher), job)
    model, dtype = start(params, seed, tokenizer, design, init)
    metrics |= {"parameters": counted(count_parameters(model))}
    if shared:
        workers.load_trained(model, job)
    elif params.steps:
        metrics |= train(model, params, seed, data, teacher, job)
    if has_weights(init) and not params.steps:
        copy_model(init, out)
    else:
        save_model(cast(model, dtype) if params.steps else model, tokenizer, out)
    del model  # its memory is the next one's
    metrics |= judge(out, data, evaluate, job)
    if teacher is not None:
        metrics |= loyalty(out, data, teacher, evaluate, job)
    return metrics | {"delivery_bytes": counted(weight_bytes(out), "weights")}


def _refuse(params: Pretrain, evaluate: Evaluate, design: Path) -> None:
    """Choices that exclude each other, tasks of `evaluate` that can't be had, contexts beyond the model's positions."""
    if params.steps and (found := list(conflicts(params))):
        raise UserError("\n".join(found))
    harness.prepare(evaluate)
    if params.steps:
        check_context("pretrain.context_length", params.context_length, design)
    check_context("evaluate.context_length", evaluate.context_length, design)
