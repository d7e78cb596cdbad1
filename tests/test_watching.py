"""What a person sees of a running stage: the same columns in every row, and where time and budget stand."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from tasks.core.job import Progress
from tasks.core.measure import Metrics
from tasks.ledger import Budget, Prices
from tasks.ledger.meter import Meter, Spent
from tasks.ledger.report import priced
from tasks.ledger.watch import Watch
from tasks.models.load import new_model
from tasks.training.loop import Loop
from tests.models import config, job
from tests.test_training import batch, settings

COLUMNS = {
    "step", "loss", "grad_norm", "learning_rate", "tokens_per_second", "mfu", "seconds", "memory_bytes",
    "energy_joules", "dollars", "validation_loss",
}  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    """A history."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_step_says_what_it_cost(tmp_path: Path) -> None:
    """All columns in every row, before and after a stop; what is spent never falls and ends in the ledger's figures."""
    place, prices = job(tmp_path), Prices()
    place.gemm_flops_per_second = {"float32": 1e11}
    with Meter(Spent(wall=1e4, cpu=2e4, attempts=1)) as meter:
        watch = Watch(Budget(), {}, meter, prices)
        place.over_budget, place.spent, place.left = watch, watch.spent, watch.left

        def interrupted(number: int) -> object:
            if number == 7:
                raise KeyboardInterrupt
            return batch(number)

        with pytest.raises(KeyboardInterrupt):
            Loop(new_model(config(), seed=0), interrupted, settings(), place).run()
        metrics = Loop(new_model(config(), seed=0), batch, settings(), place).run()
    found, ledger = rows(place.history), priced(meter.metrics(), prices)
    assert all(row.keys() == COLUMNS for row in found)
    assert [row["step"] for row in found] == [str(step) for step in range(10)]
    for column in ("seconds", "energy_joules", "dollars"):
        values = [float(row[column]) for row in found]
        assert values == sorted(values)
    for column in ("energy_joules", "dollars"):
        total = ledger[column].value
        assert total is not None
        assert 0.9 * total < float(found[-1][column]) <= total
    shares = [float(row["mfu"]) * 1e11 / float(row["tokens_per_second"]) for row in found]
    assert max(shares) == pytest.approx(min(shares)), "FLOPs per token are those of every step"
    assert metrics["mfu"].value == pytest.approx(float(metrics["flops_per_second"].value or 0) / 1e11)
    assert all(1e7 < float(row["memory_bytes"]) < 1e12 for row in found)
    assert metrics["repeated_steps"].value == 1


def test_a_job_without_instruments_leaves_cells_empty(tmp_path: Path) -> None:
    """Nothing measured, nothing invented: no rate of the machine, no MFU."""
    place = job(tmp_path)
    Loop(new_model(config(), seed=0), batch, settings(steps=2), place).run()
    assert all(row["mfu"] == "" for row in rows(place.history))


def test_energy_that_could_not_be_read_is_empty_not_nothing() -> None:
    """A card without a meter: the column is there, its cells are empty."""
    with Meter(Spent(gpu_joules=None)) as meter:
        watch = Watch(Budget(), {}, meter, Prices())
        watch(0.0)
    assert (watch.spent()["energy_joules"], watch.spent()["dollars"]) == ("", "")


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({}, {}),
        ({"memory_bytes": 1 << 30}, {}),
        ({"seconds": 400}, {"budget.seconds": "75% left"}),
        ({"seconds": 400, "flops": 1e9}, {"budget.flops": "50% left"}),
        ({"seconds": 400, "flops": 4e8}, {"budget.flops": "0% left"}),
    ],
)
def test_the_scarcest_limit_says_what_is_left(limits: dict[str, float], left: dict[str, str]) -> None:
    """Of all limits the one nearest its end, what earlier stages used included; memory does not run out with time."""
    before: dict[str, Metrics] = {"data": priced(Meter(Spent(wall=50.0)).metrics(), Prices())}
    with Meter(Spent(wall=50.0)) as meter:
        watch = Watch(Budget(**limits), before, meter, Prices())
        watch(5e8)
    assert watch.left() == left


def test_a_plain_line_says_figures_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal: how far, figures, words, time left at the pace so far; a roll-back moves the bar back."""
    monkeypatch.setattr(Progress, "EVERY", 0.0)
    with job(tmp_path).progress(10, 2) as bar:
        bar._began -= 30.0
        bar.advance(3, loss=2.5, budget="75% left")
        bar.advance(-2)
        bar.advance(7)
    first, second, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"test: step 5 of 10, loss 2\.5, budget 75% left, 0:00:5\d left", first)
    assert second.startswith("test: step 3 of 10")
    assert last == "test: step 10 of 10"
