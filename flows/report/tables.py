"""The ledger as a table: stages across, metrics down, every value with its method and every gap with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

from flows.report.load import Lifecycle
from flows.report.words import brief, exact, human, label, title
from tasks.core.measure import Method, Value
from tasks.ledger.vocabulary import VOCABULARY, Metric, Resource, lookup

SUMMED = (
    "wall_seconds", "cpu_seconds", "training_seconds", "evaluation_seconds", "flops", "communication_bytes",
    "energy_joules", "carbon_kg_co2e", "dollars",
)  # fmt: skip
PEAKS = ("peak_memory_bytes", "peak_device_memory_bytes")
METHODS: tuple[Method, ...] = get_args(Method)
LETTERS: dict[Method, str] = {"measured": "m", "counted": "c", "modelled": "f", "assumed": "a"}
MEANING: dict[Method, str] = {
    "measured": "an instrument or an evaluation that really ran",
    "counted": "derived exactly from what ran or lies on disk",
    "modelled": "a formula with stated inputs",
    "assumed": "a price or an intensity, with its source",
}


@dataclass(frozen=True)
class Cell:
    """One value as the page shows it; `reason` is the number of the footnote that says why there is none."""

    text: str = ""
    title: str = ""
    method: Method | None = None
    reason: int = 0

    @property
    def letter(self) -> str:
        """The method's mark, "" where there is no value."""
        return LETTERS[self.method] if self.method else ""


@dataclass(frozen=True)
class Line:
    """One metric: a cell per stage and one for all of them."""

    label: str
    qualifier: str
    metric: Metric
    cells: list[Cell]
    total: Cell


@dataclass
class Ledger:
    """The whole table. `reasons` are its footnotes in order; `notes`: a note -> metric -> its stages."""

    stages: list[str]
    groups: dict[str, list[Line]] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    notes: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def cell(self, stage: str, name: str, value: Value | None) -> Cell:
        """The cell of one value; notes it down."""
        if value is None:
            return Cell()
        if value.value is None:
            reason = value.note or "no reason given"
            if reason not in self.reasons:
                self.reasons.append(reason)
            return Cell("n/a", reason, reason=self.reasons.index(reason) + 1)
        if value.note:
            words, qualifier = label(name)
            said = f"{words} {qualifier}".strip()
            self.notes.setdefault(value.note, {}).setdefault(said, []).append(stage)
        return shown(name, value)

    @property
    def remarks(self) -> list[tuple[str, str]]:
        """Every note, after the metrics and stages it belongs to."""
        return [
            ("; ".join(f"{said} ({self._where(stages)})" for said, stages in places.items()), note)
            for note, places in self.notes.items()
        ]

    def _where(self, stages: list[str]) -> str:
        everywhere = len(stages) == len(self.stages) > 1
        return "all stages" if everywhere else ", ".join(title(stage).lower() for stage in stages)


def shown(name: str, value: Value, prefix: str = "") -> Cell:
    """A value that is there: humanised, with the exact one, its method and its note in the tooltip."""
    unit = lookup(name).unit
    words = f"{exact(value.value, unit)}, {value.method}" + (f": {value.note}" if value.note else "")
    return Cell(prefix + human(value.value, brief(name, unit)), words, value.method)


def ledger(life: Lifecycle) -> Ledger:
    """Every metric that any stage wrote, grouped by resource in the vocabulary's order."""
    table = Ledger(life.stages)
    written = dict.fromkeys(name for stage in life.stages for name in life.metrics(stage))
    order = list(VOCABULARY)
    names = sorted(written, key=lambda name: order.index(name.partition("/")[0]))
    for resource in get_args(Resource):
        lines = [_line(life, table, name) for name in names if lookup(name).resource == resource]
        if lines:
            table.groups[resource] = lines
    return table


def _line(life: Lifecycle, table: Ledger, name: str) -> Line:
    cells = [table.cell(stage, name, life.metrics(stage).get(name)) for stage in life.stages]
    return Line(*label(name), lookup(name), cells, total_cell(life, name))


def total_cell(life: Lifecycle, name: str) -> Cell:
    """The total (or peak) of a metric over all stages as a cell; empty where adding up makes no sense."""
    value = total(life, name)
    if value is None:
        return Cell()
    return shown(name, value, "≥ " if any(life.value(stage, name) is None for stage in _writers(life, name)) else "")


def total(life: Lifecycle, name: str) -> Value | None:
    """Sum of a summable metric, or largest of a peak, over the stages that have a figure; by the least direct method."""
    found = {s: v for s in _writers(life, name) if (v := life.metrics(s)[name]).value is not None}
    figures = [v.value for v in found.values() if v.value is not None]
    if not figures or name not in SUMMED + PEAKS:
        return None
    method = max((v.method for v in found.values()), key=METHODS.index)
    if name in PEAKS:
        return Value(max(figures), method, f"largest of {len(figures)} stages")
    exactly = sum(figures) if all(isinstance(v, int) for v in figures) else math.fsum(figures)
    return Value(exactly, method, f"sum of {len(figures)} stages")


def _writers(life: Lifecycle, name: str) -> list[str]:
    return [stage for stage in life.stages if name in life.metrics(stage)]
