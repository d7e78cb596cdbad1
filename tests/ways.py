"""What the tests of ways out share: a text, a machine, a budget that refuses, and the commands offered."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from flows.edit import assignment
from tasks.core.errors import OverBudget, UserError
from tasks.core.measure import Metrics
from tasks.core.schema import validate
from tasks.ledger import budget, ways_out
from tasks.ledger.fit import Case
from tasks.ledger.predict import plan
from tasks.ledger.predict.text import Text
from tasks.params import STAGES, Params, override
from tasks.scaling import law as scaling
from tests.models import MACHINE

ROOT = Path(__file__).parents[1]
RESOURCES = ["seconds", "joules", "dollars", "flops", "memory_bytes"]
LAW = scaling.Law(1.2, 40.0, 0.35, 900.0, 0.33, (), 0.01, "a test")


def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with four megabytes of text, and no scaling law."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    for number in range(400):
        (tmp_path / "text" / f"{number}.txt").write_text("0123456789" * 1000)


def params(**assignments: Any) -> Params:
    """Default parameters with a few changed (dots written as two underscores)."""
    dotted = {name.replace("__", "."): value for name, value in assignments.items()}
    return validate(Params, override(Params().model_dump(mode="json"), {"data.source": "text"} | dotted))


def total(planned: Mapping[str, Metrics], resource: str) -> float:
    """What a plan takes of a resource, known."""
    found = budget.total(resource, planned)
    assert found is not None
    return found


def limited(resource: str, share: float, **assignments: Any) -> Params:
    """Parameters whose budget of one resource is a share of what they are predicted to take."""
    enough = total(plan(params(**assignments), MACHINE), resource)
    limit = int(share * enough) if resource == "memory_bytes" else share * enough
    return params(**assignments, **{f"budget__{resource}": limit})


def refuse(params: Params, stages: Any = STAGES, spent: dict[str, Metrics] | None = None) -> None:
    """As both doors refuse."""
    planned = {stage: metrics for stage, metrics in plan(params, MACHINE).items() if stage in stages}
    budget.refuse(planned, params.budget, spent, lambda: ways_out.offer(params, stages, spent or {}, None, MACHINE))


def refusal(params: Params, stages: Any = STAGES, spent: dict[str, Metrics] | None = None) -> OverBudget:
    """The refusal of parameters that don't fit."""
    with pytest.raises(OverBudget) as caught:
        refuse(params, stages, spent)
    return caught.value


def commands(refused: UserError) -> list[str]:
    """The changes it offers, as they stand there."""
    return [line.strip().partition("  ")[0] for line in refused.hint.splitlines()[1:]]


def typed(params: Params, command: str) -> Params:
    """`params` after a command that was offered, read as `leanlm` reads it."""
    first, second, *rest = shlex.split(command)
    assert (first, second) == ("leanlm", "run")
    assert set(rest[::2]) == {"-S"}
    return validate(Params, override(params.model_dump(mode="json"), dict(map(assignment, rest[1::2]))))


def case(params: Params, stages: Any = STAGES) -> Case:
    """The case that `offer` makes."""
    return Case(params, stages, {}, None, MACHINE, Text(4_000_000, 400))
