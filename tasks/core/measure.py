"""A value of the ledger and the four honest ways to come by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["measured", "counted", "modelled", "assumed"]


@dataclass(frozen=True)
class Value:
    """One figure and how it was got. `value` is None where no instrument could read it; `note` then says why.

    A prediction that knows its own error says between which bounds nine of ten outcomes are expected: `low`, `high`.
    """

    value: float | int | None
    method: Method
    note: str = ""
    low: float | None = None
    high: float | None = None


Metrics = dict[str, Value]
"""Metric name (see `tasks.ledger.vocabulary`) -> value."""


def measured(value: float | int, note: str = "") -> Value:
    """An instrument read it: a clock, NVML, RAPL, `getrusage`, an evaluation that really ran."""
    return Value(value, "measured", note)


def counted(value: float | int, note: str = "") -> Value:
    """Derived exactly from what ran or what is on disk: operators executed, bytes of a file, elements of a tensor."""
    return Value(value, "counted", note)


def modelled(value: float | int, note: str, low: float | None = None, high: float | None = None) -> Value:
    """A formula with stated inputs; `note` is the formula, `low` and `high` bound nine of ten outcomes."""
    return Value(value, "modelled", note, low, high)


def assumed(value: float | int, note: str) -> Value:
    """A price or an intensity; `note` is its source and date."""
    return Value(value, "assumed", note)


def missing(reason: str) -> Value:
    """No instrument could read it: null and the reason, never 0."""
    return Value(None, "measured", reason)
