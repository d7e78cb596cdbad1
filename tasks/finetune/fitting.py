"""The training itself: a technique at work on its model, chats in, losses out."""

from __future__ import annotations

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.finetune import Finetune
from tasks.finetune.batches import Held, batch
from tasks.finetune.chats import Chats
from tasks.finetune.conflicts import conflicts, dealer, packs
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


def check(params: Finetune, config: Config, held: Chats) -> None:
    """Refuse what can't be trained, before anything is.

    Raises:
        UserError: parameters that exclude each other, or a validation loss is to be watched and there are no chats for it.
    """
    if found := list(conflicts(params, config)):
        raise UserError("\n".join(found))
    if params.early_stopping_patience is not None and not held.examples:
        raise UserError(
            f"finetune.early_stopping_patience: found {params.early_stopping_patience}; there are no held-out chats to look at",
            "raise data.validation_fraction or data.max_instructions, or set it to null",
        )


def fit(tuning: Tuning, params: Finetune, seed: int, config: Config, train: Chats, held: Chats, job: Job) -> Metrics:
    """Train what `tuning` trains; the losses on held-out chats before and after are among the figures.

    Args:
        tuning: the technique at work.
        params: as `check` has let through.
        seed: of the order of the chats, and of every step's random numbers.
        config: of the model.
        train: chats, one at least.
        held: chats to validate with, or none.
        job: what the shell lends.
    """
    model, precision, packed = tuning.model, resolve_precision(params.precision), packs(params, config)
    validation = Held(model, held.examples, params.batch_size, packed, precision)
    before = validation.loss() if held.examples else None
    dealt = dealer(params, [len(example.labels) for example in train.examples], seed, packed)
    settings = Settings(
        **{name: getattr(params, name) for name in SAME},
        precision=precision,
        packed=packed,
        seed=seed,
        optimizer=tuning.optimizer(params.optimizer.technique),
    )
    loop = Loop(
        model,
        lambda step: batch(train.examples, dealt.step(step), model.device),
        settings,
        job,
        validation.loss if held.examples else None,
        hooks=tuning,
    )
    trained = tuning.trainable()
    with noisy(model, params.neftune_noise_alpha):
        metrics = loop.run()
    metrics["trainable_parameters"] = counted(trained)
    if before is not None:
        note = f"answers of {len(held.examples)} held-out chats"
        metrics |= {
            "validation_loss_before": measured(before, note),
            "validation_loss": measured(validation.loss(), note),
        }
    return metrics
