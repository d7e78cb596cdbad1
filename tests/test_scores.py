"""Scores: predictions learn from earlier runs on the same machine, never past them, and never from another machine."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.core.measure import Metrics, Value, counted, measured, missing, modelled
from tasks.ledger import scores
from tasks.ledger.predict import forecasts, plan
from tasks.ledger.predict.calibrate import Kind, calibrated
from tasks.ledger.scores import NONE, Score, Scores
from tests.models import MACHINE
from tests.test_predict import params

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LLAMA = Kind("pretrain", "llama", "bfloat16")


def score(ratio: float, days: float = 0, family: str = "llama", **changes: Any) -> Score:
    """A run of pretrain that took `ratio` times the prediction."""
    raw = {"cpu_seconds": 100.0, "flops": 1e12, "parameters": 1e6, "peak_memory_bytes": 1e9} | changes.pop("raw", {})
    taken = {"cpu_seconds": ratio * raw["cpu_seconds"], "flops": raw["flops"]}
    date = (NOW - timedelta(days=days)).isoformat()
    return Score("pretrain", family, "bfloat16", raw, taken, date, scores.formulas(), **changes)


def prediction(*runs: Score, kind: Kind = LLAMA, **changes: float) -> Value:
    """Corrected processor seconds of a run like those of `score`."""
    figures = {"cpu_seconds": 100.0, "flops": 1e12, "parameters": 1e6, "peak_memory_bytes": 1e9} | changes
    raw: Metrics = {name: modelled(value, "formula") for name, value in figures.items()}
    return calibrated(kind, raw, Scores(runs))["cpu_seconds"]


def centre(*runs: Score, **changes: Any) -> float:
    """Its value."""
    value = prediction(*runs, **changes).value
    assert value is not None
    return float(value)


def width(*runs: Score) -> float:
    """Logarithm of the upper over the lower bound."""
    found = prediction(*runs)
    assert found.low is not None
    assert found.high is not None
    return math.log(found.high / found.low)


def test_without_scores_the_formula_stands_with_wide_bounds() -> None:
    """Ratio 1, half to double."""
    found = prediction()
    assert found.value == 100.0
    assert found.low == pytest.approx(50)
    assert found.high == pytest.approx(200)
    assert "corrected" not in found.note


@pytest.mark.parametrize("ratio", [0.5, 0.93, 1.3, 4.0])
def test_every_run_moves_the_prediction_towards_the_measurement_and_none_past_it(ratio: float) -> None:
    """Monotone in the number of runs, and between formula and measurement."""
    steps = [abs(math.log(centre(*[score(ratio)] * count) / (100 * ratio))) for count in range(6)]
    assert steps == sorted(steps, reverse=True)
    assert all(min(1, ratio) <= centre(*[score(ratio)] * n) / 100 <= max(1, ratio) for n in range(1, 6))
    assert steps[5] < 0.1 * steps[0]


def test_the_note_says_by_how_much_and_from_how_many_runs() -> None:
    """The stated shrinkage: one run of 2 gives exp(0.75 ln 2)."""
    assert "corrected by x1.68 from 1 run on this machine" in prediction(score(2.0)).note
    assert "from 3 runs" in prediction(*[score(2.0)] * 3).note


def test_newer_runs_weigh_more() -> None:
    """Of two that disagree, the newer one wins."""
    assert centre(score(2.0), score(0.5, days=300)) > 100 > centre(score(0.5), score(2.0, days=300))


def test_runs_of_the_same_family_and_of_similar_size_weigh_more() -> None:
    """Another family moves it less than the own one; a run a thousand times larger hardly."""
    assert 100 < centre(score(2.0, family="mamba2")) < centre(score(2.0))
    huge = {"flops": 1e18, "parameters": 1e10, "cpu_seconds": 1e7, "peak_memory_bytes": 1e11}
    assert 100 <= centre(score(2.0, raw=huge)) < 101


def test_runs_in_company_and_by_other_formulas_weigh_less() -> None:
    """A busy machine, other libraries' code, other predicting code."""
    alone = centre(score(2.0))
    assert 100 < centre(score(2.0, others=0.8)) < alone
    assert 100 < centre(Score(**{**vars(score(2.0)), "formulas": "older"})) < alone


def test_counts_are_never_corrected() -> None:
    """FLOPs keep the formula's value whatever was counted; only bounds are put around them."""
    odd = [Score(**{**vars(score(1.0)), "measured": {"flops": 2e12}})] * 5
    found = calibrated(
        LLAMA, {"flops": modelled(10**12, "exact"), "parameters": modelled(5, "exact")}, Scores(tuple(odd))
    )
    assert found["flops"].value == 10**12
    assert found["flops"].high is not None
    assert found["flops"].high > 1.3e12
    assert found["parameters"] == modelled(5, "exact")


def test_consistent_runs_narrow_the_bounds_and_scattered_ones_do_not() -> None:
    """Leave-one-out errors of ten runs that agree are small; of ten that scatter, large."""
    alike, scattered = [score(1.5)] * 10, [score(ratio) for ratio in (0.4, 3.0) * 5]
    assert width(*alike) < 0.6 * width() < width(*scattered)
    assert width(*alike) < width(*alike[:3]) < width()


def test_the_bounds_contain_nine_of_ten_of_what_comes_next() -> None:
    """Thirty lognormal runs calibrate; of two hundred more, 80 to 100 % fall inside."""
    import random

    dice = random.Random(0)
    found = prediction(*[score(1.4 * math.exp(dice.gauss(0, 0.15))) for _ in range(30)])
    later = [100 * 1.4 * math.exp(dice.gauss(0, 0.15)) for _ in range(200)]
    assert found.low is not None
    assert found.high is not None
    assert sum(found.low <= value <= found.high for value in later) / 200 >= 0.8
    assert found.high / found.low < 2.2


def test_a_damaged_line_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a line, foreign JSON, wrong types, a date that is none: the others count, and the note says how many not."""
    monkeypatch.chdir(tmp_path)
    for ratio in (1.5, 1.6):
        scores.append("here", score(ratio))
    wrong = {**json.loads(scores.path("here").read_text().splitlines()[0]), "raw": {"flops": "many"}}
    undated = {**wrong, "raw": {}, "date": "yesterday"}
    with scores.path("here").open("a") as file:
        file.write(f'[1, 2]\n{json.dumps(wrong)}\n{json.dumps(undated)}\n\n{{"stage": "pre')
    scores.append("here", score(1.7))
    found = scores.read("here")
    assert [run.ratio("cpu_seconds") for run in found.runs] == pytest.approx([1.5, 1.6, 1.7])
    assert found.damaged == 4
    note = calibrated(LLAMA, {"cpu_seconds": modelled(100.0, "formula")}, found)["cpu_seconds"].note
    assert "from 3 runs on this machine (4 damaged lines of scores left out)" in note


def test_scores_stay_on_their_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's plan and a nameless one's are the formulas'; a name can't leave the folder."""
    monkeypatch.chdir(tmp_path)
    raw = forecasts(params(), MACHINE)["pretrain"].raw
    slow = {name: 3.0 * float(value.value or 0) for name, value in raw.items()}
    runs = [
        Score("pretrain", "llama", "bfloat16", scores.numbers(raw, raw), slow, NOW.isoformat(), scores.formulas())
    ] * 4
    for run in runs:
        scores.append("here", run)
    here, there = (plan(params(), type(MACHINE)(**{**vars(MACHINE), "name": name})) for name in ("here", "there"))
    formula = plan(params(), MACHINE, scores=NONE)
    assert there == formula == plan(params(), MACHINE)
    value, plain = here["pretrain"]["wall_seconds"].value, formula["pretrain"]["wall_seconds"].value
    assert value is not None
    assert plain is not None
    assert 2.5 * plain < value < 3 * plain
    assert here["finetune"] == formula["finetune"]
    scores.append("", runs[0])
    scores.append("../../etc/name", runs[0])
    assert sorted(path.name for path in (tmp_path / "hardware").iterdir()) == [
        ".._.._etc_name.scores.jsonl",
        "here.scores.jsonl",
    ]


def test_energy_and_money_follow_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrected processor seconds move joules by the same factor, and their bounds bound them."""
    monkeypatch.chdir(tmp_path)
    raw = forecasts(params(), MACHINE)["pretrain"].raw
    double = {name: 2.0 * float(value.value or 0) for name, value in raw.items()}
    run = Score("pretrain", "llama", "bfloat16", scores.numbers(raw, raw), double, NOW.isoformat(), scores.formulas())
    before, after = (plan(params(), MACHINE, scores=Scores(runs))["pretrain"] for runs in ((), (run,)))
    for metric in ("energy_joules", "dollars"):
        one, two = before[metric], after[metric]
        assert None not in (one.value, two.value, two.low, two.high)
        assert float(two.value or 0) == pytest.approx(2**0.75 * float(one.value or 0), rel=1e-3)
        assert float(two.low or 0) < float(two.value or 0) < float(two.high or 0)


def test_a_score_keeps_what_was_predicted_before_correction_and_only_what_was_read_off() -> None:
    """Modelled energy and unread figures are no measurements; a resumed run is no comparison."""
    raw: Metrics = {"wall_seconds": modelled(10, "f"), "flops": modelled(7, "f"), "dollars": modelled(1, "f")}
    ledger: Metrics = {
        "wall_seconds": measured(12.0),
        "flops": counted(7),
        "dollars": modelled(2, "price"),
        "mfu": missing("no rate"),
        "attempts": counted(1),
    }
    made = scores.made(("data", "llama", "train"), raw, ledger, {"torch": "1"}, 0.2)
    assert made is not None
    assert (made.raw, made.measured) == ({"wall_seconds": 10.0, "flops": 7.0}, {"wall_seconds": 12.0, "flops": 7.0})
    again = scores.made(("data", "llama", "train"), raw, ledger | {"attempts": counted(2)}, {}, 0.0)
    assert again is None
    unknown: Metrics = {"wall_seconds": missing("no text")}
    assert scores.made(("data", "", ""), unknown, ledger, {}, 0.0) is None
