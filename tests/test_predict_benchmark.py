"""The prediction benchmark: peers' formulas against hand counts, the table, and one tiny run of the whole thing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, peers, table
from benchmarks.peers import Peaks
from tasks.accounting import forward_flops_per_token
from tests import models

ROOT = Path(__file__).parents[1]
PEAKS = Peaks(flops=1e12, bandwidth=1e10, cores=2)


def test_no_held_out_shape_was_calibrated_with() -> None:
    """Names, vocabularies and every model and batch differ between the two sets."""
    seen = [case.changes for case in cases.CALIBRATION]
    assert all(case.changes not in seen for case in cases.HELD_OUT)
    assert {case.vocabulary for case in cases.CALIBRATION}.isdisjoint(case.vocabulary for case in cases.HELD_OUT)
    shape = (
        "design.llama.hidden_size",
        "design.llama.num_hidden_layers",
        "pretrain.batch_size",
        "pretrain.context_length",
    )
    dense = [tuple(c.changes.get(n) for n in shape) for c in (*cases.CALIBRATION, *cases.HELD_OUT) if "dense" in c.name]
    assert len(set(dense)) == len(dense)


def test_every_case_is_a_valid_configuration() -> None:
    """Parameters exist and their values are allowed; names are unique within their set."""
    from tasks import params
    from tasks.core.schema import validate

    for chosen in (cases.CALIBRATION, cases.HELD_OUT, cases.QUICK):
        assert len({(case.name, case.held_out) for case in chosen}) == len(chosen)
        for case in chosen:
            values = params.override(params.Params().model_dump(mode="json"), case.parameters)
            made = validate(params.Params, values)
            assert made.design.technique.blueprint(case.vocabulary, Path("none"))["vocab_size"] == case.vocabulary


def test_6nd_is_six_operations_per_parameter_and_token() -> None:
    """FLOPs, seconds at the peak, processor seconds of all cores."""
    assert peers.six_nd(10, 100.0, PEAKS) == {"flops": 6000.0, "training_seconds": 6e-9, "cpu_seconds": 1.2e-8}
    assert peers.two_n(500, PEAKS)["decode_tokens_per_second"] == 1e9


def test_llm_analysis_counts_the_flops_that_a_llama_has() -> None:
    """Its count of a gated model with grouped queries is the exact one, as its formulas say."""
    config = models.config(num_attention_heads=4, num_key_value_heads=2)
    found = peers.llm_analysis_training(config, 3, 32, 5, PEAKS)
    assert found["flops"] == pytest.approx(3 * 5 * 3 * 32 * forward_flops_per_token(config, 32))
    assert found["training_seconds"] >= found["flops"] / PEAKS.flops
    assert found["cpu_seconds"] == 2 * found["training_seconds"]


def test_peers_decode_slower_with_more_to_read() -> None:
    """More bytes a weight or more keys: fewer tokens; bound by reading the weights at least once."""
    config = models.config(num_attention_heads=4, num_key_value_heads=2)
    inside = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    for predict in (peers.llm_analysis_decode, peers.llm_viewer_decode):
        full, half = (predict(config, 64, PEAKS, size)["decode_tokens_per_second"] for size in (4.0, 2.0))
        assert full < half
        assert predict(config, 1000, PEAKS, 4.0)["decode_tokens_per_second"] < full
        assert full <= PEAKS.bandwidth / (4.0 * inside)


def result(measured: float, predicted: float, raw: float) -> dict[str, Any]:
    """A measurement of a tiny pretrain."""
    ledger = {
        "cpu_seconds": {"value": measured, "method": "measured"},
        "tokens": {"value": 640, "method": "counted"},
        "flops": {"value": 5, "method": "modelled"},
        "parameters": {"value": 1000, "method": "counted"},
    }
    return {
        "case": "tiny",
        "stage": "pretrain",
        "metrics": ledger,
        "predicted": {"cpu_seconds": {"value": predicted, "low": 1.0, "high": 9.0}, "flops": {"value": 5}},
        "parameters": {"pretrain.batch_size": 2, "pretrain.context_length": 32},
        "config": models.config(),
        "score": {"raw": {"cpu_seconds": raw}},
        "machine_rates": {
            "rates": {"gemm_flops_per_second": {"float32": 1e9, "bfloat16": 1e9}, "bandwidth_bytes_per_second": 1e9}
        },
    }


def test_the_table_averages_how_far_off_each_predictor_is() -> None:
    """Twice too much and half too little are both off by two; a modelled figure is no measurement."""
    document, text = table.summary([result(4.0, 2.0, 4.0), result(4.0, 8.0, 1.0)])
    group = document["groups"]["CPU-seconds"]
    assert (group["figures"], group["inside"]) == (2, "2 of 2")
    assert group["corrected"] == pytest.approx(2.0)
    assert group["formulas"] == pytest.approx(2.0)
    assert group["6ND"] == pytest.approx(4.0 / (6 * 1000 * 640 / 1e9))
    assert group["LLM-Viewer"] is None
    assert "FLOPs" not in document["groups"]
    assert "| CPU-seconds | 2 | 1.15 | 2.000 | 2.000 |" in text


def test_a_failed_stage_is_listed_and_not_averaged() -> None:
    """Its words are in the text."""
    _, text = table.summary([result(4.0, 4.0, 4.0), {"case": "odd", "stage": "pretrain", "failed": "no memory"}])
    assert "odd, pretrain: failed: no memory" in text
    assert table.off([]) is None
    assert table.off([2.0, 0.5]) == pytest.approx(2.0)


@pytest.mark.slow
def test_the_quick_run_measures_resumes_and_writes_its_table(tmp_path: Path) -> None:
    """Calibrate, predict, run; a second time nothing is measured again and the table stays."""
    command = [sys.executable, str(ROOT / "benchmarks/prediction.py"), "--quick"]
    command += ["--folder", str(tmp_path / "bench"), "--out", str(tmp_path / "out")]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    document = json.loads((tmp_path / "out/prediction.json").read_text())
    assert not document["failed"]
    assert {row["stage"] for row in document["rows"]} >= {"pretrain", "finetune"}
    for group in document["groups"].values():
        assert group["corrected"] >= 1
        assert math.isfinite(group["corrected"])
    assert document["groups"]["bytes"]["corrected"] < 1.01
    kept = [json.loads(path.read_text()) for path in (tmp_path / "bench/results").rglob("*.json")]
    assert len(kept) == 7
    assert all(one["score"]["stage"] == one["stage"] and one["score"]["raw"]["cpu_seconds"] > 0 for one in kept)
    lines = next((tmp_path / "bench/hardware").glob("*.scores.jsonl")).read_text().splitlines()
    assert [json.loads(line)["stage"] for line in lines] == ["data", "design", "pretrain", "finetune"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.stdout == first.stdout
    assert "pretrain" not in again.stderr
