"""What is kept of a point: `reports/compare/<stage>/<point>.json`, small and diffable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flows.compare.points import Point
from flows.history import Row
from flows.report.load import cleared
from flows.report.plots import decimated
from tasks.core.files import write_whole
from tasks.core.measure import Metrics, Value
from tasks.ledger import report

FOLDER = report.FOLDER / "compare"
MOST = 200
"""Rows of a history that are kept at most."""
COLUMNS = ("step", "loss", "validation_loss", "seconds")

State = Literal["done", "failed", "refused"]


@dataclass(frozen=True)
class Outcome:
    """A point and what came of it.

    Attributes:
        point: the contender.
        state: refused: never started.
        reason: why there are no figures, or "".
        report: the stage's own, `metrics` and `predicted` as `Metrics`; empty where there are none.
        rows: of the history, few.
        computed: whether it was computed just now; else it was known.
    """

    point: Point
    state: State
    reason: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()
    computed: bool = False

    @property
    def metrics(self) -> Metrics:
        """What the stage wrote."""
        found: Metrics = self.report.get("metrics", {})
        return found

    def entry(self, name: str) -> Value | None:
        """An entry of the ledger; `activation_bytes` means `activation_bytes/none` where that is the only one."""
        if name in self.metrics:
            return self.metrics[name]
        qualified = [value for key, value in self.metrics.items() if key.startswith(f"{name}/")]
        return qualified[0] if len(qualified) == 1 else None

    def value(self, name: str) -> float | None:
        """One figure, or None."""
        entry = self.entry(name)
        return None if entry is None else entry.value


def failed(point: Point, state: State, reason: str) -> Outcome:
    """An outcome without figures; what may be passed on of the reason."""
    return Outcome(point, state, str(cleared(reason)))


def done(point: Point, found: dict[str, Any], rows: list[Row], computed: bool) -> Outcome:
    """An outcome with figures; of the history, what a picture needs."""
    few = [{name: row[name] for name in COLUMNS if name in row} for row in _few(rows)]
    return Outcome(point, "done", report=found, rows=few, computed=computed)


def _few(rows: list[Row]) -> list[Row]:
    """Evenly, and every row with a validation loss that is among few of them."""
    chosen = decimated(rows, MOST)
    judged = [row for row in rows if "validation_loss" in row]
    steps = {row["step"] for row in (*chosen, *decimated(judged, MOST))}
    return [row for row in rows if row["step"] in steps]


def path_of(stage: str, point: Point) -> Path:
    """Where the record of a point lies."""
    return FOLDER / stage / f"{point.slug}.json"


def write(stage: str, outcome: Outcome) -> None:
    """Keep an outcome, whole or not at all."""
    document: dict[str, Any] = {
        "point": outcome.point.name,
        "values": outcome.point.values,
        "state": outcome.state,
        "reason": outcome.reason,
    }
    if found := outcome.report:
        texts = {name: report.to_json(found[name]) for name in ("metrics", "predicted")}
        document |= {"report": {**found, **texts}, "history": list(outcome.rows)}
    target = path_of(stage, outcome.point)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
