"""A model folder whose adapter could not be merged: `unmerged.json` beside a base model, the adapter in `adapter/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.models.difference import digest
from tasks.models.soft_prompt import place_texts

MARK = "unmerged.json"
ADAPTER = "adapter"
BASE = "base_sha256"


def mark_unmerged(folder: Path) -> None:
    """Say that the model of `folder`, whose weights lie there, is to be used with its adapter, and no other with that."""
    (folder / MARK).write_text(json.dumps({"adapter": ADAPTER, BASE: digest(folder)}) + "\n", encoding="utf-8")


def is_unmerged(folder: Path) -> bool:
    """Whether the model of `folder` is nothing without its adapter."""
    return (folder / MARK).exists()


def refuse_unmerged(folder: Path, parameter: str) -> None:
    """Refuse an unmerged folder where only its base would be used.

    Raises:
        UserError: `folder`, which `parameter` names, is one.
    """
    if is_unmerged(folder):
        raise UserError(
            f"{parameter} '{folder}': its adapter could not be merged, and the base alone is another model",
            "name a model of weights alone: the base itself, or what a method that merges has written",
        )


def positions_taken(folder: Path) -> int:
    """Positions of every text that the adapter of `folder` takes for its virtual tokens; 0 where it has none."""
    if not is_unmerged(folder):
        return 0
    stored = json.loads((folder / ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    return int(stored.get("num_virtual_tokens") or 0)


def with_adapter(model: Any, folder: Path) -> Any:
    """`model`, the base of `folder`, under that folder's adapter, in evaluation mode.

    Raises:
        UserError: the adapter is damaged, or the weights are others than those it was trained on.
    """
    from peft import PeftModel

    from tasks.models import bottleneck
    from tasks.models.load import friendly_errors

    _check_base(folder)
    with friendly_errors(folder / ADAPTER):
        if bottleneck.is_bottleneck(folder / ADAPTER):
            return bottleneck.load(model, folder / ADAPTER).eval()
        made = PeftModel.from_pretrained(model, folder / ADAPTER).eval()
    place_texts(made)
    return made


def _check_base(folder: Path) -> None:
    from tasks.models.load import friendly_errors

    if not is_unmerged(folder):
        return
    with friendly_errors(folder):
        expected = json.loads((folder / MARK).read_text(encoding="utf-8"))[BASE]
    if expected != digest(folder):
        raise UserError(
            f"{folder}: its weights aren't those that {ADAPTER}/ was trained on",
            "put the base model back that it was finetuned from",
        )
