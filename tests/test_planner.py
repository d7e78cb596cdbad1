"""The planner: what it chooses keeps every limit, nothing beats the front, and it knows which limit matters."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.params import Params, override
from tasks.planner import Constraints, Limit, Plan, search
from tasks.planner.binding import FACTOR
from tasks.planner.constraints import Figure
from tasks.planner.search import ALIKE, TRADED
from tasks.scaling import law as laws
from tests import models

ROOT = Path(__file__).parents[1]
MACHINE = replace(models.MACHINE, memory_bytes=16 << 30)
LAW = laws.Law(0.6, 30.0, 0.3, 4000.0, 0.5, ((0.62, 30, 0.3, 4000, 0.5), (0.58, 30, 0.3, 4000, 0.5)), 0.01, "a law", "")


@pytest.fixture(autouse=True)
def _no_records(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a folder without earlier runs: no fitted law, no scores."""
    monkeypatch.chdir(tmp_path)


def params(**assignments: Any) -> Params:
    """Default parameters with a few changed (dots written as two underscores), reading a text that is there."""
    dotted = {name.replace("__", "."): value for name, value in assignments.items()}
    start = {"data.source": str(ROOT / "data" / "stdlib.yaml")}
    return validate(Params, override(Params().model_dump(mode="json"), start | dotted))


def limit(figure: Figure, most: float, name: str = "") -> Limit:
    """A limit by the name of its figure."""
    return Limit(name or f"--{figure}", figure, most, f"{most:g}")


@cache
def planned(*limits: Limit, context: int | None = None) -> Plan:
    """A search among Llama-like models."""
    return search(params(), MACHINE, Constraints(limits, context, ("llama",)))


HOURS, FILE, RATE = limit("seconds", 3600), limit("model_bytes", 3e6), limit("seconds_per_token", 1 / 600)


def test_nothing_beats_the_front() -> None:
    """No member is equalled or beaten in everything by another; every candidate that is left out is."""
    plan = planned(HOURS, FILE, RATE)
    rows = {id(one): [one.figures[figure] or 0.0 for figure in TRADED] for one in plan.considered}

    def beaten(row: list[float], by: list[float]) -> bool:
        return all(b <= a for a, b in zip(row, by, strict=True))

    front = {id(one) for one in plan.front}
    assert 5 < len(front) < len(rows)
    for mine, row in rows.items():
        others = [rows[other] for other in front if other != mine]
        assert any(beaten(row, other) for other in others) == (mine not in front)


@pytest.mark.parametrize("limits", [(HOURS,), (HOURS, FILE, RATE), (limit("joules", 2e4), limit("dollars", 0.05))])
def test_the_chosen_keeps_every_limit(limits: tuple[Limit, ...]) -> None:
    """Predicted anew from the values that would be written, the choice keeps what was asked; so does every candidate."""
    plan = planned(*limits)
    again = plan.field.exactly(plan.chosen)
    assert again.keeps(plan.constraints.limits)
    assert sum(float(stage["wall_seconds"].value or 0) for stage in plan.stages.values()) == again.figures["seconds"]
    assert all(one.keeps(limits) for one in plan.considered)
    assert plan.chosen.bits_per_byte <= min(one.bits_per_byte for one in plan.considered) * (1 + 2 * ALIKE)


@pytest.mark.parametrize(
    ("figure", "amounts"),
    [
        ("seconds", (600, 1800, 7200, 40000)),
        ("flops", (1e13, 1e14, 1e15)),
        ("joules", (3e3, 3e4, 3e5)),
        ("dollars", (0.01, 0.1, 1.0)),
        ("training_memory_bytes", (1.7e9, 4e9, 1e10)),
        ("memory_bytes", (6.2e7, 1e8, 1e9)),
        ("model_bytes", (1e6, 4e6, 3e7)),
        ("seconds_per_token", (1 / 2000, 1 / 500, 1 / 30)),
    ],
)
def test_more_is_never_worse(figure: Figure, amounts: tuple[float, ...]) -> None:
    """Relaxing a limit never makes the predicted quality worse (but for what counts as equally good)."""
    found = [planned(limit("seconds", 172800), limit(figure, most)).chosen.bits_per_byte for most in amounts]
    assert all(more <= less * (1 + 2 * ALIKE) for less, more in pairwise(found))
    assert found[-1] < found[0]


def test_the_binding_limit_binds() -> None:
    """Relaxing the limit that is named buys quality, relaxing one that is said to buy nothing doesn't."""
    plan = planned(limit("seconds", 1800), limit("memory_bytes", 2e9), limit("seconds_per_token", 0.5))
    assert plan.binding is not None
    assert plan.binding.figure == "seconds"
    slack = [gain.figure for gain in plan.gains if gain.better == 0]
    assert set(slack) >= {"memory_bytes", "seconds_per_token", "training_memory_bytes"}
    for one in plan.constraints.limits[:3]:
        relaxed = planned(*(other.relaxed(FACTOR) if other is one else other for other in plan.constraints.limits[:3]))
        better = plan.chosen.bits_per_byte - relaxed.chosen.bits_per_byte
        assert (better > 0.01) == (one.figure == plan.binding.figure)


def test_three_budgets_three_models() -> None:
    """More of everything: a larger model, trained longer, better; a small file alone: a small model read many times."""
    small, middle, large = (planned(limit("seconds", hours * 3600)) for hours in (0.1, 2, 48))
    sizes = [plan.chosen.shape.parameters for plan in (small, middle, large)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert small.chosen.bits_per_byte > middle.chosen.bits_per_byte > large.chosen.bits_per_byte
    tiny = planned(limit("model_bytes", 1e6), limit("seconds", 48 * 3600))
    assert tiny.chosen.shape.parameters < sizes[1]
    assert tiny.chosen.tokens > middle.chosen.tokens


def test_one_impossible_limit_is_named() -> None:
    """A limit that nothing keeps by itself is named alone, with the best there is; just that much is possible."""
    with pytest.raises(
        UserError, match=r"--tokens-per-second 90000: impossible by itself: the fastest is [\d,]+"
    ) as found:
        planned(HOURS, Limit("--tokens-per-second", "seconds_per_token", 1 / 90000, "90000"))
    assert "seconds 3600" not in str(found.value)
    assert found.value.code == 2
    fastest = float(found.value.message.partition("fastest is ")[2].split()[0].replace(",", ""))
    planned(HOURS, limit("seconds_per_token", 1.001 / fastest))


def test_two_limits_that_conflict_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two limits alone can be kept, both can't: both are named, each with the least it takes given the other."""
    monkeypatch.setattr(laws, "load", lambda: LAW)
    quality, size = limit("bits_per_byte", 1.15), limit("model_bytes", 1e6)
    both = (quality, limit("seconds", 3e6), size)
    small = replace(MACHINE, memory_bytes=3 << 30)
    for one in both:
        search(params(), small, Constraints((one,), None, ("llama",)))
    with pytest.raises(UserError) as found:
        search(params(), small, Constraints(both, None, ("llama",)))
    message = found.value.message
    assert message.startswith("--bits_per_byte 1.15 and --model_bytes 1e+06: not possible together")
    assert "seconds" not in message
    least = float(message.partition("the least is ")[2].partition("with --bits")[0].split()[0])
    search(params(), small, Constraints((limit("bits_per_byte", least * 1.001), size), None, ("llama",)))


def test_a_context_that_conflicts_is_named() -> None:
    """A memory that holds the shortest context and not the one asked for: both are named, with the memory it takes."""
    memory = limit("memory_bytes", 7e7)
    planned(memory)
    with pytest.raises(UserError, match=r"--memory_bytes 7e\+07 and --context 131072: not possible together") as found:
        planned(memory, context=131072)
    least = float(found.value.message.partition("the least is ")[2].split()[0]) * 1e6
    planned(limit("memory_bytes", least * 1.001), context=131072)


def test_costs_are_what_the_stages_predict() -> None:
    """At any length a candidate's figures are those of its own prediction, but for a checkpoint that isn't due, never less."""
    plan = planned(HOURS)
    shape = plan.chosen.shape
    for steps in (shape.least, 777, 5432, 40000):
        line, exact = shape.at(steps).figures, plan.field.exactly(shape.at(steps)).figures
        for figure, value in exact.items():
            assert line[figure] == pytest.approx(value, rel=1e-2), figure
            assert (line[figure] or 0) >= (value or 0) * (1 - 1e-9), figure


def test_budget_and_memory_are_limits() -> None:
    """What `budget:` says counts as well, under its own name, and so does the memory there is."""
    plan = search(params(budget__joules=20000), MACHINE, Constraints((), None, ("llama",)))
    assert plan.binding is not None
    assert plan.binding.words == "budget.joules 20000"
    assert (plan.chosen.figures["joules"] or 0) <= 20000
    room = [one for one in plan.constraints.limits if one.figure == "training_memory_bytes"]
    assert [one.most for one in room] == [MACHINE.memory_bytes]
