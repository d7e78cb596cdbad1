"""What the stages will cost, before they run: the plan as a table, and the budget's verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.status import Reason, Stale
from tasks.core.errors import UserError
from tasks.core.measure import Metrics, Value
from tasks.params import STAGES, Params, load

if TYPE_CHECKING:
    from tasks.ledger.machine import Machine

COLUMNS = {
    "FLOPs": "flops",
    "time": "wall_seconds",
    "peak memory": "peak_memory_bytes",
    "model": "model_bytes",
    "energy": "energy_joules",
    "money": "dollars",
}
"""Heading -> metric."""

BANDED = ("wall_seconds", "peak_memory_bytes")
"""The metrics whose bounds are shown; the others follow from them, or are counted."""

BAND = "9 in 10"
"""Heading of the bounds of a column before it."""


def plan(params: Params) -> dict[str, Metrics]:
    """Stage -> predicted metrics, priced, on this machine (measured once, then kept)."""
    from tasks.ledger import predict

    return predict.plan(params)


def refuse(stale: Stale) -> None:
    """Refuse a run that is predicted to exceed the budget, given what the finished stages have spent of it.

    A stage that only misses its output doesn't count: DVC puts it back where it can, and the runner asks again where not.

    Raises:
        OverBudget: which resource, how much of it, and what to do.
    """
    from tasks.ledger import budget, report

    params = load()
    must = [stage for stage in stale if any(_computes(reason) for reason in stale[stage])]
    if must:
        refuse_impossible(params)
    if not must or not budget.limits(params.budget):
        return
    finished = {stage: report.read(stage, params.prices) for stage in STAGES if stage not in stale}
    spent = {stage: found["metrics"] for stage, found in finished.items() if found is not None}
    check(params, {s: m for s, m in plan(params).items() if s in stale}, spent)


def refuse_impossible(params: Params) -> None:
    """Refuse now what a later stage would have to refuse after hours of work.

    Raises:
        UserError: combinations of choices that can't work with this architecture, each with what to do.
    """
    from tasks import compatibility
    from tasks.ledger.predict.subject import config_for

    try:
        config = config_for(params)
    except UserError:  # a model that isn't there yet can't be judged; the stage that fetches it will
        return
    compatibility.check(params, config)


def check(
    params: Params,
    planned: dict[str, Metrics],
    spent: dict[str, Metrics] | None = None,
    machine: Machine | None = None,
) -> None:
    """Let `planned` pass, or refuse it with the cheapest changes that would fit on `machine` (None: this one).

    Raises:
        OverBudget: it is predicted to exceed a limit, given what was `spent`.
    """
    from tasks.ledger import budget, ways_out

    budget.refuse(
        planned, params.budget, spent, lambda: ways_out.offer(params, planned.keys(), spent or {}, machine=machine)
    )


def _computes(reason: Reason) -> bool:
    """Whether it takes a computation: an output that is only missing here comes out of the cache, if that has it."""
    return reason.kind not in ("output", "upstream") or reason.change == "not in cache"


def warnings(params: Params, machine: Machine | None = None) -> list[str]:
    """What the planned design is warned of; nothing where it can't be known yet.

    Args:
        params: everything a person may turn.
        machine: measured rates; None: this machine's.
    """
    from tasks.design import advice
    from tasks.ledger import machine as machines
    from tasks.ledger.predict.subject import subject

    try:
        about = subject(params, machine or machines.measure())
    except UserError:
        return []
    return advice.warnings(about.config)


def table(planned: dict[str, Metrics]) -> str:
    """A line per stage and one of totals, with the band of nine in ten beside what has one, and why figures lack.

    Totals: of memory the largest, of the model what is delivered at the end; a band adds up as if all stages erred alike.
    """
    from flows.report.words import human
    from tasks.ledger.vocabulary import lookup

    rows = [[name] for name in ("", *planned, "total")]
    for heading, metric in COLUMNS.items():
        unit = lookup(metric).unit
        values = [entries.get(metric) for entries in planned.values()]
        known = [value for value in values if value is not None and value.value is not None]
        cells = [None if value is None or value.value is None else value.value for value in values]
        column = [heading, *(human(cell, unit) if cell is not None else "-" for cell in cells)]
        column.append(human(_total(metric, [value.value or 0 for value in known]), unit) if known else "-")
        for row, cell in zip(rows, column, strict=True):
            row.append(cell)
        if metric in BANDED and any(value.low is not None for value in known):
            for row, cell in zip(rows, [BAND, *_bands(metric, values)], strict=True):
                row.append(cell)
    lacking = {metrics[m].note for metrics in planned.values() for m in COLUMNS.values() if _is_null(metrics.get(m))}
    said = [f"-: {reason}" for reason in sorted(lacking)]
    if any(BAND in row for row in rows):
        said.append(f"{BAND}: between these bounds nine of ten outcomes are expected")
    return "\n".join([columns(rows), *said])


def _total(metric: str, values: Sequence[float]) -> float:
    if metric == "model_bytes":
        return values[-1]
    return max(values) if metric == "peak_memory_bytes" else sum(values)


def _bands(metric: str, values: Sequence[Value | None]) -> list[str]:
    """A cell per stage, "" where it has no band, and one for all of them."""
    from flows.report.words import span
    from tasks.ledger.vocabulary import lookup

    unit = lookup(metric).unit
    found = [span(value.low, value.high, unit) if value is not None else "" for value in values]
    if metric == "model_bytes":
        return [*found, ""]
    known = [value for value in values if value is not None and value.value is not None]
    bounds = [[b if b is not None else value.value or 0 for b in (value.low, value.high)] for value in known]
    low, high = (_total(metric, side) for side in zip(*bounds, strict=True))
    return [*found, span(low, high, unit)]


def _is_null(value: Value | None) -> bool:
    return value is not None and value.value is None


def columns(rows: list[list[str]]) -> str:
    """Rows as aligned text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)
