"""What the stages will cost, before they run: the plan as a table, and the budget's verdict on it."""

from __future__ import annotations

from flows.status import Reason, Stale
from tasks.core.measure import Metrics, Value
from tasks.params import STAGES, Params, load

COLUMNS = {
    "FLOPs": "flops",
    "time": "wall_seconds",
    "peak memory": "peak_memory_bytes",
    "model": "model_bytes",
    "energy": "energy_joules",
    "money": "dollars",
}
"""Heading -> metric."""


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
    if not must or not budget.limits(params.budget):
        return
    finished = {stage: report.read(stage, params.prices) for stage in STAGES if stage not in stale}
    spent = {stage: found["metrics"] for stage, found in finished.items() if found is not None}
    budget.refuse({s: m for s, m in plan(params).items() if s in stale}, params.budget, spent)


def _computes(reason: Reason) -> bool:
    """Whether it takes a computation: an output that is only missing here comes out of the cache, if that has it."""
    return reason.kind not in ("output", "upstream") or reason.change == "not in cache"


def table(planned: dict[str, Metrics]) -> str:
    """A line per stage, one of totals (memory: the largest; model: what is delivered at the end), and why figures lack."""
    from flows.report.words import human
    from tasks.ledger.vocabulary import lookup

    def cell(metric: str, value: Value | None) -> str:
        return "-" if value is None or value.value is None else human(value.value, lookup(metric).unit)

    rows = [["", *COLUMNS]]
    for stage, metrics in planned.items():
        rows.append([stage, *(cell(metric, metrics.get(metric)) for metric in COLUMNS.values())])
    totals = ["total"]
    for metric in COLUMNS.values():
        values = [entries[metric].value for entries in planned.values() if metric in entries]
        known = [value for value in values if value is not None]
        total = max(known, default=0) if metric == "peak_memory_bytes" else sum(known)
        total = known[-1] if known and metric == "model_bytes" else total
        totals.append(human(total, lookup(metric).unit) if known else "-")
    lacking = {metrics[m].note for metrics in planned.values() for m in COLUMNS.values() if _is_null(metrics.get(m))}
    return "\n".join([columns([*rows, totals]), *(f"-: {reason}" for reason in sorted(lacking))])


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
