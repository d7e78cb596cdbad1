"""The training itself: a technique at work on its model, rows in, losses out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.finetune import Finetune
from tasks.finetune.conflicts import conflicts, dealer, packs
from tasks.finetune.lesson import Given, Lesson
from tasks.finetune.shared.noise import noisy
from tasks.finetune.technique import Tuning
from tasks.models import Config
from tasks.models.device import resolve_precision
from tasks.training.loop import Loop
from tasks.training.settings import Settings

SAME = (
    "steps",
    "learning_rate",
    "schedule",
    "weight_decay",
    "max_grad_norm",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "checkpoint_every",
    "eval_every",
    "early_stopping_patience",
)
"""Parameters the loop takes as they are."""


def check(params: Finetune, config: Config) -> None:
    """Refuse what can't be trained, before anything is.

    Raises:
        UserError: parameters that exclude each other, or what this model excludes.
    """
    if found := list(conflicts(params, config)):
        raise UserError("\n".join(found))


def given(
    params: Finetune, config: Config, data: Path, tokenizer: Any, seed: int, job: Job, reload: Callable[[], Any]
) -> Given:
    """What an objective is given of those parameters; `reload` loads the base model anew."""
    packed = packs(params, config)
    return Given(
        data=data,
        tokenizer=tokenizer,
        context_length=params.context_length,
        batch_size=params.batch_size,
        seed=seed,
        precision=resolve_precision(params.precision),
        job=job,
        reload=reload,
        packed=packed,
        deal=partial(dealer, params, seed=seed, packed=packed),
    )


def fit(tuning: Tuning, params: Finetune, seed: int, lesson: Lesson, job: Job) -> Metrics:
    """Train what `tuning` trains; how well held-out rows are mastered before and after is among the figures.

    Args:
        tuning: the technique at work.
        params: as `check` has let through.
        seed: of every step's random numbers.
        lesson: the objective at work on `tuning.model`.
        job: what the shell lends.

    Raises:
        UserError: the validation loss is to be watched, and there are no rows for it.
    """
    if params.early_stopping_patience is not None and lesson.watched is None:
        raise UserError(
            f"finetune.early_stopping_patience: found {params.early_stopping_patience}; there are no held-out chats to look at",
            "raise data.validation_fraction or data.max_instructions, or set it to null",
        )
    settings = Settings(
        **{name: getattr(params, name) for name in SAME},
        precision=resolve_precision(params.precision),
        packed=lesson.packed,
        seed=seed,
        optimizer=tuning.optimizer(params.optimizer.technique),
        spikes=lesson.spikes,
    )
    before = lesson.validate()
    loop = Loop(tuning.model, lesson.batch, settings, job, lesson.watched, hooks=tuning, objective=lesson.objective)
    trained = tuning.trainable()
    with noisy(tuning.model, params.neftune_noise_alpha):
        metrics = loop.run()
    if lesson.objective is not None:
        metrics["objective_loss"] = metrics.pop("train_loss")
    metrics["trainable_parameters"] = counted(trained)
    return metrics | {f"{name}_before": value for name, value in before.items()} | lesson.validate()
