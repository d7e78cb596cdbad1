"""Looks after the budget while a stage runs, and says what it has spent so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.job import Row
from tasks.core.measure import Metrics, Value, measured, missing
from tasks.ledger import Budget, Prices
from tasks.ledger.budget import METRIC_OF, amount, amounts, limits
from tasks.ledger.meter import Meter, Spent, resident_bytes
from tasks.ledger.report import priced


@dataclass
class Watch:
    """Looks after the budget while a stage runs: `Job.over_budget`, `Job.spent`, `Job.left`.

    Attributes:
        budget: the limits.
        before: metrics of the finished upstream stages, priced.
        meter: the running stage's meter, earlier attempts included.
        prices: what energy and time cost.
        spent_path: where every check leaves what was spent (`Meter.save`), for the attempt after a kill.
    """

    budget: Budget
    before: Mapping[str, Metrics]
    meter: Meter
    prices: Prices
    spent_path: Path | None = None
    _limits: dict[str, float] = field(init=False)
    _used: dict[str, float] = field(init=False)
    _now: Metrics = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._limits = limits(self.budget)
        self._used = {name: sum(amounts(self.before, name).values()) for name in METRIC_OF}
        self._used["memory_bytes"] = 0.0

    def __call__(self, flops: float) -> str:
        """The sentence that says which resource ran out, or "".

        Args:
            flops: what this stage has computed so far, all attempts together.
        """
        if self.spent_path is not None:
            self.meter.save(self.spent_path)
        self._now = priced(_as_metrics(self.meter.spent(), flops), self.prices)
        for resource, limit in self._limits.items():
            used = self._used_of(resource)
            if used > limit:
                return f"budget.{resource} is used up: {amount(resource, used)} of {amount(resource, limit)}"
        return ""

    def _used_of(self, resource: str) -> float:
        """By the finished stages and this one, when last asked."""
        entry = self._now.get(METRIC_OF[resource])
        return self._used[resource] + float((entry.value if entry else None) or 0.0)

    def spent(self) -> Row:
        """Memory held now by this process and its children, energy and money of this stage when last asked, priced as the report does it."""
        known = {name: self._now[name].value if name in self._now else None for name in ("energy_joules", "dollars")}
        row: Row = {"memory_bytes": resident_bytes() + self.meter.living.resident}
        return row | {name: "" if value is None else value for name, value in known.items()}

    def left(self) -> Row:
        """Share left of the limit that is nearest its end; memory, which doesn't grow with time, is not among them."""
        shares = {
            resource: 1 - self._used_of(resource) / limit
            for resource, limit in self._limits.items()
            if resource != "memory_bytes"
        }
        if not shares:
            return {}
        scarcest = min(shares, key=lambda resource: shares[resource])
        return {f"budget.{scarcest}": f"{max(0.0, shares[scarcest]):.0%} left"}


def _as_metrics(spent: Spent, flops: float) -> Metrics:
    """What has been spent as the ledger would write it."""
    joules = {"energy_joules/cpu": spent.cpu_joules, "energy_joules/gpu": spent.gpu_joules}
    entries: dict[str, float | None] = {
        "wall_seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "flops": flops,
        "peak_memory_bytes": spent.peak_memory,
        **joules,
    }
    return {name: _value(entry) for name, entry in entries.items()}


def _value(entry: float | None) -> Value:
    return missing("no meter") if entry is None else measured(entry)
