"""Budget and machine: what is refused before, what is stopped while it runs, what the machine is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.core.errors import OverBudget, UserError
from tasks.core.measure import Metrics, measured, missing
from tasks.ledger import Budget, Prices, budget, cgroup, machine
from tasks.ledger.meter import Meter, Spent
from tasks.ledger.report import priced
from tasks.ledger.watch import Watch

PRICES = Prices()


@pytest.fixture
def running() -> Iterator[Meter]:
    """A meter with something on it."""
    with Meter(Spent(wall=100.0, cpu=200.0, cpu_joules=None, peak_memory=1 << 30, attempts=1)) as meter:
        yield meter


@pytest.mark.parametrize(
    ("limit", "within"),
    [
        ({"seconds": 120}, {"seconds": 1000}),
        ({"joules": 1700}, {"joules": 5000}),
        ({"dollars": 0.003}, {"dollars": 1}),
        ({"flops": 150}, {"flops": 1000}),
        ({"memory_bytes": 1 << 20}, {"memory_bytes": 1 << 50}),
    ],
)
def test_the_watch_names_the_resource_that_ran_out(
    running: Meter, limit: dict[str, float], within: dict[str, float]
) -> None:
    """Finished stages and earlier attempts count; the sentence names the parameter."""
    before: dict[str, Metrics] = {
        "data": priced({"wall_seconds": measured(30.0), "cpu_seconds": measured(30.0), "flops": measured(60.0)}, PRICES)
    }
    (name,) = limit
    assert f"budget.{name}" in Watch(Budget(**limit), before, running, PRICES)(100.0)
    assert Watch(Budget(**within), before, running, PRICES)(100.0) == ""
    assert Watch(Budget(), before, running, PRICES)(1e30) == ""


def stage(seconds: float, memory: int = 0) -> Metrics:
    """A stage's priced metrics."""
    return priced(
        {
            "wall_seconds": measured(seconds),
            "cpu_seconds": measured(seconds),
            "peak_memory_bytes": measured(memory),
        },
        PRICES,
    )


def test_a_plan_within_the_budget_passes() -> None:
    """No limit, and limits that hold, refuse nothing."""
    plan = {"pretrain": stage(100, 10), "finetune": stage(10, 20)}
    budget.refuse(plan, Budget())
    budget.refuse(plan, Budget(seconds=111, memory_bytes=20), {"data": stage(1, 5)})


def test_a_refusal_names_limit_total_dearest_stage_and_a_limit_that_would_do() -> None:
    """The hint's figure, taken as the budget, lets the same plan pass."""
    plan, spent = {"pretrain": stage(1234.567), "finetune": stage(10)}, {"data": stage(100)}
    with pytest.raises(OverBudget) as caught:
        budget.refuse(plan, Budget(seconds=500), spent)
    message, hint = caught.value.message, caught.value.hint
    assert "budget.seconds: 500 s" in message
    assert "pretrain" in message
    assert "1.34e+03 s" in message
    assert "100 s of it spent already" in message
    assert "pretrain.steps" in hint
    enough = float(hint.partition("at least ")[2].split(",")[0])
    assert 1344.567 <= enough < 1.02 * 1344.567
    budget.refuse(plan, Budget(seconds=enough), spent)


def test_memory_is_limited_stage_by_stage() -> None:
    """Peaks don't add up; the stage that exceeds the limit is named."""
    plan = {"pretrain": stage(1, 600), "finetune": stage(1, 700)}
    budget.refuse(plan, Budget(memory_bytes=700))
    with pytest.raises(OverBudget, match="finetune"):
        budget.refuse(plan, Budget(memory_bytes=699))


def test_what_cannot_be_predicted_is_not_refused() -> None:
    """A null figure isn't counted as anything."""
    budget.refuse({"data": {"wall_seconds": missing("no text yet")}}, Budget(seconds=1))


def test_a_stage_that_does_not_fit_is_refused_with_what_would_help() -> None:
    """The sentence has both sizes and the parameters to lower."""
    budget.check_memory("pretrain", 100, 100)
    with pytest.raises(UserError, match=r"(?s)pretrain: needs about 3,072 MiB.*2,048 MiB free.*pretrain\.batch_size"):
        budget.check_memory("pretrain", 3 << 30, 2 << 30)


def test_the_machine_is_described_without_naming_it() -> None:
    """No host name, user or path; the same words every time."""
    found = machine.describe()
    text = json.dumps(found)
    assert found == machine.describe()
    assert {"name", "cpu", "cores", "memory_bytes", "gpu", "platform", "python"} == set(found)
    assert os.uname().nodename not in text or len(os.uname().nodename) < 4
    assert str(Path.home()) not in text or str(Path.home()) == "/"


def test_available_memory_respects_a_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of what the system and the group leave; droppable file pages are free."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path)
    assert machine.available_memory() <= psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.available_memory() > 1 << 20
    (tmp_path / "memory.max").write_text(f"{1 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{(1 << 20) - 100}\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 40\n")
    assert machine.available_memory() == 140
