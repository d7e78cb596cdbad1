"""What adapters of one base can't be, told before the first of them is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.finetune import Finetune
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.technique import Plan
from tasks.models import Config, positions
from tasks.models.adapter import refuse_unmerged


def refuse_folders(base: Path, data: Path) -> None:
    """Refuse what is no base, or not what the data stage wrote.

    Raises:
        UserError: the base's adapter could not be merged; no rows to learn from.
    """
    refuse_unmerged(base, "base")
    if not (data / "instructions" / "train.jsonl").is_file():
        raise UserError(
            f"data: found '{data}', which holds no instructions/train.jsonl to learn from",
            "name the folder the data stage wrote",
        )


def refuse(adapters: Mapping[str, Finetune], config: Config, seed: int) -> None:
    """Refuse what can't be done on a base of this config, by an adapter or by all of them together.

    Args:
        adapters: by name.
        config: of the base.
        seed: of every adapter.

    Raises:
        UserError: a technique that doesn't fit the base, or can't share it; parameters that exclude each other.
    """
    from tasks.finetune.fitting import check
    from tasks.models.load import outline

    for name, chosen in adapters.items():
        _refuse_alone(name, chosen)
        if why := chosen.technique.refuse(config):
            raise UserError(f"adapters.{name}: {why}")
        check(chosen, config)
        _refuse_length(name, chosen, positions(config))
    shape, (first, *others) = outline(config), adapters
    kinds = {name: _kind(chosen, shape, seed) for name, chosen in adapters.items()}
    for name in others:
        if kinds[name] != kinds[first]:
            raise UserError(
                f"adapters.{name}: found finetune.method {adapters[name].method}, of peft's type {kinds[name]}; "
                f"{first} is of type {kinds[first]}, and adapters of one base are of one type",
                "train those of each type by a command of their own",
            )


def _refuse_length(name: str, chosen: Finetune, limit: int | None) -> None:
    """Texts longer than the model's positions, of which virtual tokens take some; `limit` None: it has no end of them."""
    if limit and chosen.context_length > (free := limit - chosen.technique.positions):
        raise UserError(
            f"adapters.{name}.context_length: found {chosen.context_length}; the model has {limit} positions, of which "
            f"{free} are left for a text",
            "lower it",
        )


def _kind(chosen: Finetune, model: Any, seed: int) -> str:
    """What peft calls the type of such an adapter of `model`."""
    plan = Plan(Path(), Path(), chosen.steps, seed, chosen.optimizer.technique)
    return str(chosen.technique.peft_config(model, plan).peft_type.value)


def _refuse_alone(name: str, chosen: Finetune) -> None:
    """What can't share a base, told from parameters alone."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"adapters: found the name '{name}'; letters, digits, - and _ are allowed")
    technique = chosen.technique
    if not isinstance(technique, PeftTechnique) or type(technique).begin is not PeftTechnique.begin:
        raise UserError(
            f"adapters.{name}: found finetune.method {chosen.method}, which doesn't leave its base to others",
            "take one that only puts an adapter beside frozen weights (lora), or train it with the finetune stage",
        )
    if chosen.objective.method != "sft":
        raise UserError(
            f"adapters.{name}.objective.method: found {chosen.objective.method}; adapters of one base learn from chats",
            "set it to sft, or train it by itself, with the finetune stage",
        )
    if not chosen.steps:
        raise UserError(f"adapters.{name}.steps: found 0; nothing would be trained", "raise it")
