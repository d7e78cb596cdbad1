"""Every preset runs as `leanlm run --preset NAME` does it, and keeps what it promises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.params import STAGES
from tests.conftest import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def metrics(space: Workspace, stage: str) -> dict[str, Any]:
    """Name -> value of a stage's report."""
    report = json.loads((space.root / "reports" / f"{stage}.json").read_text())
    return {name: entry["value"] for name, entry in report["metrics"].items()}


def through(space: Workspace, preset: str, *more: str) -> dict[str, dict[str, Any]]:
    """Run a preset; returns the ledger."""
    try:
        space.leanlm("run", "--preset", preset, *more)
    finally:
        space.leanlm("down")
    return {stage: metrics(space, stage) for stage in STAGES}


def test_default(workspace: Workspace) -> None:
    """The default learns within a third of its steps: far below an untrained model, on its own text, within 4 GiB."""
    ledger = through(workspace, "default", "-S", "pretrain.steps=160")
    assert ledger["pretrain"]["bits_per_byte"] < 2.6
    assert ledger["finetune"]["validation_loss"] < ledger["finetune"]["validation_loss_before"]
    assert max(stage["peak_memory_bytes"] for stage in ledger.values()) < 4 * 2**30


def test_smoke(workspace: Workspace) -> None:
    """The smoke preset goes through every stage."""
    ledger = through(workspace, "smoke")
    assert all(stage["wall_seconds"] > 0 for stage in ledger.values())
