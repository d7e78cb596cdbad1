"""Predicted beside measured: how far off each prediction was, and whether it fell where it said it would."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from flows.report.load import Lifecycle
from flows.report.tables import Cell, shown
from flows.report.words import brief, label, listed, ratio, span, title
from tasks.core.measure import Value
from tasks.ledger.vocabulary import Resource, lookup

CLOSE, FAIR = 1.25, 2.0


@dataclass(frozen=True)
class Comparison:
    """One prediction.

    Attributes:
        ratio: measured over predicted, None where either is missing or the prediction is 0.
        low, high: the band of nine in ten, as multiples of the prediction; None where it has none.
    """

    stage: str
    name: str
    predicted: Cell
    measured: Cell
    ratio: float | None
    band: str = ""
    low: float | None = None
    high: float | None = None

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

    @property
    def inside(self) -> bool | None:
        """Whether the measured value lies in the band; None where there is no band or nothing was measured."""
        if self.ratio is None or self.low is None or self.high is None:
            return None
        return self.low <= self.ratio <= self.high

    @property
    def place(self) -> str:
        """`inside` or `outside` the band, or ""."""
        return {True: "inside", False: "outside", None: ""}[self.inside]

    @property
    def kind(self) -> str:
        """What it is summed up under: "time", "memory", "FLOPs and bytes", or "" for the rest (rates, money, energy)."""
        base, unit = self.name.partition("/")[0], lookup(self.name).unit
        if base in ("peak_memory_bytes", "peak_device_memory_bytes"):
            return "memory"
        if unit == "s":
            return "time"
        return "FLOPs and bytes" if unit.partition("/")[0] in ("FLOP", "B") else ""


def comparisons(life: Lifecycle) -> list[Comparison]:
    """Every prediction of every stage that has a report, in order."""
    found = []
    for stage in life.stages:
        measured = life.metrics(stage)
        for name, guess in life.reports[stage]["predicted"].items():
            fact = measured.get(name, Value(None, "measured", "the stage did not write it"))
            off = _ratio(fact.value, guess.value)
            found.append(Comparison(stage, name, _cell(name, guess), _cell(name, fact), off, *_band(name, guess)))
    return found


def typical(found: Iterable[Comparison]) -> float | None:
    """By which factor predictions are off, whichever way: the geometric mean; None where nothing can be compared."""
    factors = [one.factor for one in found if one.ratio is not None and math.isfinite(one.factor)]
    return math.exp(math.fsum(map(math.log, factors)) / len(factors)) if factors else None


def off(found: Iterable[Comparison]) -> str:
    """The same of one stage's times and memory as a person reads it, e.g. "off by 1.04×"; "" without either."""
    factor = typical(one for one in found if one.kind)
    return "" if factor is None else f"off by {_factor(factor)} (geometric mean)"


def summary(found: list[Comparison]) -> str:
    """How good the predictions were, in sentences; "" where nothing can be compared."""
    known = [one for one in found if one.ratio is not None]
    if not known:
        return ""
    worst = max(known, key=lambda one: one.factor)
    text = score(known)
    if worst.factor > CLOSE:
        text += f" Furthest off: {worst.words} of {title(worst.stage).lower()}, {worst.ratio_text}."
    return text


def score(found: list[Comparison]) -> str:
    """One sentence: how many fell inside their band, and by which factor time, memory and counts are off."""
    known = [one for one in found if one.ratio is not None]
    banded = [one for one in known if one.inside is not None]
    kinds = ("time", "memory", "FLOPs and bytes")
    factors = {kind: typical(one for one in known if one.kind == kind) for kind in kinds}
    means = [f"{_factor(factor)} for {kind}" for kind, factor in factors.items() if factor is not None]
    if banded:
        inside = f"{sum(one.inside is True for one in banded)} fell inside"
        first = f"Of {len(banded)} predictions with a band, {inside}"
    else:
        first = (
            f"{sum(one.verdict == 'close' for one in known)} of {len(known)} predictions within a factor of {CLOSE:g}"
        )
    return first + (f"; off by a geometric mean of {listed(means)}." if means else ".")


def _factor(factor: float) -> str:
    return f"{factor:.3f}×" if factor < 1.005 else ratio(factor)


def _band(name: str, guess: Value) -> tuple[str, float | None, float | None]:
    """The bounds as text, and as multiples of the prediction."""
    if not guess.value or guess.value < 0 or guess.low is None or guess.high is None:
        return "", None, None
    text = span(guess.low, guess.high, brief(name, lookup(name).unit))
    return text, guess.low / guess.value, guess.high / guess.value


def _cell(name: str, value: Value) -> Cell:
    return shown(name, value) if value.value is not None else Cell("n/a", value.note or "no reason given")


def _ratio(measured: float | None, predicted: float | None) -> float | None:
    if measured is None or predicted is None or not (math.isfinite(measured) and math.isfinite(predicted)):
        return None
    if measured == predicted:
        return 1.0
    return measured / predicted if predicted > 0 and measured >= 0 else None
