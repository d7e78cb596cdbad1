"""Predictions of every architecture family, of its memory, of a rented machine, and of the loss."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.design import Design
from tasks.design.run import costs
from tasks.ledger.machine import Machine
from tasks.ledger.predict import plan
from tasks.scaling.law import Law, Record, save
from tests.models import MACHINE
from tests.test_predict import params, value

FAMILIES = [name for name in Design.techniques() if name != "existing"]
NO_GGUF = {
    "deploy_profile__gguf": [],
    "deploy_profile__serve": "safetensors",
    "deploy_profile__engines": ["transformers"],
}


@pytest.mark.parametrize("method", FAMILIES)
def test_every_family_has_a_whole_plan(method: str) -> None:
    """Every figure of every stage is a finite number without a GGUF; twice the steps cost twice the training."""
    one, two = (plan(params(design__method=method, pretrain__steps=n, **NO_GGUF), MACHINE) for n in (50, 100))
    for stage, metrics in one.items():
        for name, found in metrics.items():
            assert found.value is not None, (stage, name, found.note)
            assert math.isfinite(found.value), (stage, name)
            assert found.value >= 0, (stage, name)
    assert value(two, "pretrain", "flops") == pytest.approx(2 * value(one, "pretrain", "flops"))
    assert value(two, "pretrain", "training_seconds") == pytest.approx(2 * value(one, "pretrain", "training_seconds"))
    assert value(one, "deploy_profile", "delivery_bytes") == value(one, "compress", "model_bytes")
    assert not [name for name in one["deploy_profile"] if "llama_cpp" in name or "Q8_0" in name]


def test_design_predicts_what_the_stage_will_write() -> None:
    """The same figures under the same names."""
    config = params().design.technique.blueprint(params().data.tokenizer.train.vocab_size, Path("none"))
    predicted = plan(params(), MACHINE)["design"]
    written = costs(config)
    assert {name: entry.value for name, entry in written.items()} == {name: predicted[name].value for name in written}


def test_only_llama_models_become_gguf() -> None:
    """Another family's GGUF is null with the reason, and is no reason to fail."""
    predicted = plan(params(design__method="mamba2"), MACHINE)["deploy_profile"]
    assert predicted["delivery_bytes"].value is None
    assert "mamba2" in predicted["delivery_bytes"].note
    assert "decode_tokens_per_second/llama_cpp" not in predicted
    assert predicted["wall_seconds"].value is not None


def test_memory_has_its_parts_and_checkpointing_would_save_some() -> None:
    """Activations grow with the batch, moments and checkpoints do not; gradient checkpointing keeps less."""
    small, large = (plan(params(pretrain__batch_size=n), MACHINE) for n in (8, 32))
    none, some = "activation_bytes/none", "activation_bytes/full"
    assert value(large, "pretrain", none) == pytest.approx(4 * value(small, "pretrain", none))
    assert value(large, "pretrain", some) < value(large, "pretrain", none) / 2
    grown = value(large, "pretrain", "peak_memory_bytes") - value(small, "pretrain", "peak_memory_bytes")
    assert grown > value(large, "pretrain", none) - value(small, "pretrain", none)
    for name, each in (("optimizer_bytes", 8), ("checkpoint_bytes", 12)):
        assert value(large, "pretrain", name) == pytest.approx(each * value(large, "pretrain", "parameters"), rel=1e-4)
        assert value(large, "pretrain", name) == value(small, "pretrain", name)


def test_a_public_accelerator_brings_its_price_its_power_and_says_what_is_assumed() -> None:
    """Dollars by its hour, joules by its board, the assumption in the notes of every time."""
    rented = Machine(
        **{**vars(MACHINE), "device": "cuda", "watts": 700.0, "dollars_per_hour": 36.0, "assumed": "0.4 of the peak"}
    )
    found = plan(params(), rented)["pretrain"]
    seconds, joules = float(found["wall_seconds"].value or 0), float(found["energy_joules/gpu"].value or 0)
    power = float(found["energy_joules"].value or 0) / 3.6e6 * params().prices.dollars_per_kwh
    assert found["dollars"].value == pytest.approx(seconds * 0.01 + power)
    assert 0 < joules <= seconds * 700
    assert found["wall_seconds"].note.endswith("0.4 of the peak")
    assert "0.4 of the peak" not in found["parameters"].note


def test_a_scaling_law_of_this_family_and_text_predicts_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing without a law; an interval with one; none for another family or another text."""
    monkeypatch.chdir(tmp_path)
    assert "bits_per_byte" not in plan(params(), MACHINE)["pretrain"]
    law = Law(1.0, 50.0, 0.4, 300.0, 0.4, ((1.1, 50.0, 0.4, 300.0, 0.4),), 0.01, "5 runs", family="llama")
    save(Record(law, []))
    found = plan(params(), MACHINE)["pretrain"]["bits_per_byte"]
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.high
    assert "5 runs" in found.note
    more = plan(params(pretrain__steps=3500), MACHINE)["pretrain"]["bits_per_byte"]
    assert float(more.value or 9) < found.value
    assert "bits_per_byte" not in plan(params(design__method="mistral"), MACHINE)["pretrain"]
    save(Record(replace(law, data="another text"), []))
    assert "bits_per_byte" not in plan(params(), MACHINE)["pretrain"]
    (tmp_path / "reports/scaling.json").write_text("{")
    assert "damaged" in plan(params(), MACHINE)["pretrain"]["bits_per_byte"].note
