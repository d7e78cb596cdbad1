"""A model folder whose adapter could not be merged: `unmerged.json` beside a base model, the adapter in `adapter/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MARK = "unmerged.json"
ADAPTER = "adapter"


def mark_unmerged(folder: Path) -> None:
    """Say that the model of `folder` is to be used with its adapter."""
    (folder / MARK).write_text(json.dumps({"adapter": ADAPTER}) + "\n", encoding="utf-8")


def is_unmerged(folder: Path) -> bool:
    """Whether the model of `folder` is nothing without its adapter."""
    return (folder / MARK).exists()


def with_adapter(model: Any, folder: Path) -> Any:
    """`model`, the base of `folder`, under that folder's adapter, in evaluation mode."""
    from peft import PeftModel

    from tasks.models.load import friendly_errors

    with friendly_errors(folder / ADAPTER):
        return PeftModel.from_pretrained(model, folder / ADAPTER).eval()
