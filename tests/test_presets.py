"""Every preset runs as `leanlm run --preset NAME` does it, and keeps what it promises."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.models.device import native_bf16
from tasks.params import STAGES
from tests.conftest import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

LESS = [
    *("-S", "compress.nf4.bnb_4bit_compute_dtype=float32"),
    *("-S", "evaluate.max_bytes=8192"),
    *("-S", "finetune.steps=10"),
]
"""For a machine that has no units for bfloat16: the same model and stages, in an arithmetic it has, and fewer of them."""


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


def test_smollm2(workspace: Workspace) -> None:
    """The real 135M model: passed through pretraining unchanged, its bits per byte lie below xz's."""
    ledger = through(workspace, "smollm2", *(() if native_bf16() else LESS))
    assert ledger["pretrain"]["parameters"] == 134_515_008
    assert ledger["pretrain"]["bits_per_byte"] < ledger["data"]["xz_bits_per_byte"]
    assert ledger["compress"]["bits_per_byte"] < ledger["data"]["xz_bits_per_byte"]
    assert ledger["finetune"]["validation_loss"] < ledger["finetune"]["validation_loss_before"]
