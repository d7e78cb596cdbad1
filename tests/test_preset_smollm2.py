"""The preset of the real model, in a file of its own: a worker of the test runner can take it while another has the default."""

from __future__ import annotations

import pytest

from tasks.models.device import native_bf16
from tests.conftest import Workspace
from tests.test_presets import through

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

LESS = [
    *("-S", "compress.nf4.bnb_4bit_compute_dtype=float32"),
    *("-S", "evaluate.max_bytes=8192"),
    *("-S", "finetune.steps=10"),
]
"""For a machine that has no units for bfloat16: the same model and stages, in an arithmetic it has, and fewer of them."""


def test_smollm2(workspace: Workspace) -> None:
    """The real 135M model: passed through pretraining unchanged, its bits per byte lie below xz's."""
    ledger = through(workspace, "smollm2", *(() if native_bf16() else LESS))
    assert ledger["pretrain"]["parameters"] == 134_515_008
    assert ledger["pretrain"]["bits_per_byte"] < ledger["data"]["xz_bits_per_byte"]
    assert ledger["compress"]["bits_per_byte"] < ledger["data"]["xz_bits_per_byte"]
    assert ledger["finetune"]["validation_loss"] < ledger["finetune"]["validation_loss_before"]
