"""Choices of finetune that exclude each other, or that the model excludes, told from parameters and config. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.accounting.packing import unpackable
from tasks.finetune import Finetune
from tasks.models import Config
from tasks.models.packing import Dealer
from tasks.training.refused import refusals


def packs(params: Finetune, config: Config) -> bool:
    """Whether chats share rows: as `finetune.packing` says, `auto` wherever nothing is against it."""
    return params.packing == "on" or (params.packing == "auto" and not apart(params, config))


def dealer(params: Finetune, lengths: Sequence[int], seed: int, packed: bool) -> Dealer:
    """What deals chats of those lengths in tokens to the steps."""
    parts = params.gradient_accumulation_steps
    return Dealer(tuple(lengths), params.batch_size, seed, packed, params.group_by_length, parts)


def apart(params: Finetune, config: Config) -> str:
    """Why chats can't share rows, for a person; "" if they can."""
    if not params.technique.packs:
        return f"finetune.method {params.method} adds to the beginning of a row, which is the first chat's alone"
    return unpackable(config, params.context_length)


def conflicts(params: Finetune, config: Config | None = None) -> Iterator[str]:
    """One sentence per combination that can't work: what was found where, and what to do; `config`: of the model."""
    if params.packing == "on" and config is not None and (why := apart(params, config)):
        yield f"finetune.packing: found on; {why}: set it to auto or off"
    yield from refusals("finetune", params, "chats")
    if params.early_stopping_patience is not None:
        yield from _stopping(params, params.early_stopping_patience)
    yield from _optimizing(params)
    if not params.objective.technique.of_chats:
        yield from _beside_chats(params)
    yield from params.objective.technique.refuse(params.batch_size, params.context_length)


def _stopping(params: Finetune, patience: int) -> Iterator[str]:
    """Why a run can't end at the best of its steps."""
    if params.eval_every >= params.steps:
        yield (
            f"finetune.early_stopping_patience: found {patience}; the validation loss is first looked at after "
            f"{params.eval_every} steps (finetune.eval_every) of {params.steps}: lower finetune.eval_every, or set it to null"
        )
    if params.technique.shrinks:
        yield (
            f"finetune.early_stopping_patience: found {patience}; {params.method} cuts what it delivers down to size as the run "
            "goes on, and an earlier step's weights aren't cut yet: set it to null"
        )


def _optimizing(params: Finetune) -> Iterator[str]:
    """What a method and an optimizer can't do together."""
    name, technique = params.method, params.technique
    method, optimizer = params.optimizer.method, params.optimizer.technique
    if optimizer.schedule_free and technique.rotates:
        yield (
            f"finetune.optimizer.method: found {method}; it averages the weights of a whole run, and {name} makes it forget "
            "those that rest: set it to adamw"
        )
    if technique.reads_gradients and not optimizer.keeps_gradients:
        yield (
            f"finetune.optimizer.method: found {method}; {name} looks at the gradients of a step, and {method} leaves none: "
            "set it to adamw"
        )


def _beside_chats(params: Finetune) -> Iterator[str]:
    """What only training on whole chats knows."""
    learned, idle = params.objective.method, Finetune()
    for field in (
        "packing",
        "group_by_length",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "early_stopping_patience",
    ):
        found, default = getattr(params, field), getattr(idle, field)
        if found not in (default, "off"):
            yield f"finetune.{field}: found {found}; finetune.objective.method {learned} knows nothing of it: set it to {_word(default)}"


def _word(value: object) -> str:
    """As params.yaml writes it."""
    return "null" if value is None else str(value).lower()
