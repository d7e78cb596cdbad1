"""Predicted beside measured: how far off each prediction was."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from flows.report.load import Lifecycle
from flows.report.tables import Cell, shown
from flows.report.words import label, ratio, title
from tasks.core.measure import Value
from tasks.ledger.vocabulary import Resource, lookup

CLOSE, FAIR = 1.25, 2.0


@dataclass(frozen=True)
class Comparison:
    """One prediction. `ratio` is measured over predicted, None where either is missing or the prediction is 0."""

    stage: str
    name: str
    predicted: Cell
    measured: Cell
    ratio: float | None

    @property
    def words(self) -> str:
        """The metric's name as a person reads it."""
        return " ".join(label(self.name)).strip()

    @property
    def label(self) -> str:
        """The same without what it is of."""
        return label(self.name)[0]

    @property
    def qualifier(self) -> str:
        """What it is of, e.g. a file or an engine; mostly ""."""
        return label(self.name)[1]

    @property
    def resource(self) -> Resource:
        """The resource it belongs to."""
        return lookup(self.name).resource

    @property
    def ratio_text(self) -> str:
        """E.g. "1.04×"."""
        return ratio(self.ratio)

    @property
    def factor(self) -> float:
        """How far off, whichever way: at least 1; infinite where one of the two is 0."""
        if self.ratio is None:
            return 1.0
        return max(self.ratio, 1 / self.ratio) if self.ratio > 0 else math.inf

    @property
    def verdict(self) -> str:
        """`close`, `fair` or `far`; "" where nothing can be compared."""
        if self.ratio is None:
            return ""
        return "close" if self.factor <= CLOSE else "fair" if self.factor <= FAIR else "far"


def comparisons(life: Lifecycle) -> list[Comparison]:
    """Every prediction of every stage that has a report, in order."""
    found = []
    for stage in life.stages:
        measured = life.metrics(stage)
        for name, guess in life.reports[stage]["predicted"].items():
            fact = measured.get(name, Value(None, "measured", "the stage did not write it"))
            found.append(
                Comparison(stage, name, _cell(name, guess), _cell(name, fact), _ratio(fact.value, guess.value))
            )
    return found


def summary(found: list[Comparison]) -> str:
    """One sentence on how good the predictions were; "" where nothing can be compared."""
    known = [one for one in found if one.ratio is not None]
    if not known:
        return ""
    worst = max(known, key=lambda one: one.factor)
    middle = statistics.median(one.factor for one in known)
    close = sum(one.verdict == "close" for one in known)
    text = f"{close} of {len(known)} predictions within a factor of {CLOSE:g}; half within {middle:.2f}."
    if worst.factor > CLOSE:
        text += f" Furthest off: {worst.words} of {title(worst.stage).lower()}, {worst.ratio_text}."
    return text


def _cell(name: str, value: Value) -> Cell:
    return shown(name, value) if value.value is not None else Cell("n/a", value.note or "no reason given")


def _ratio(measured: float | None, predicted: float | None) -> float | None:
    if measured is None or predicted is None or not (math.isfinite(measured) and math.isfinite(predicted)):
        return None
    if measured == predicted:
        return 1.0
    return measured / predicted if predicted > 0 and measured >= 0 else None
