"""The table for a terminal and for Markdown, and the sentences that say what it shows."""

from __future__ import annotations

from flows.compare.record import Outcome
from flows.compare.table import COSTS, Table, cell, heading, rank, setting, settings
from flows.forecast import columns
from flows.report.words import human, label, listed
from tasks.ledger.vocabulary import lookup

CLOSE = 0.02
"""Qualities that differ by no more, relative to the better one, are called close."""
SHORT = {
    "trainable_parameters": "trained",
    "optimizer_bytes": "optimizer",
    "activation_bytes": "activations",
    "peak_memory_bytes": "memory",
    "delivery_bytes": "delivered",
    "flops": "FLOPs",
    "wall_seconds": "time",
    "energy_joules": "energy",
    "dollars": "money",
    "forgetting_bits_per_byte": "forgetting",
}
"""The columns that fit a terminal, and their headings there."""


def terminal(table: Table) -> str:
    """Aligned columns, the best of each with a star, and on which fronts a point is; then who has no figures, and why."""
    names = [name for name in table.columns if name == table.quality or name in SHORT]
    heads = [SHORT.get(name, label(name)[0].lower()) for name in names]
    rows = [["", *(words for words, _ in settings(table)), *heads, "nothing beats it in"]]
    best = {name: table.best(name) for name in names}
    for row in table.rows:
        cells = [f"{cell(row, name)}{'*' if row.point.name in best[name] else ' '}" for name in names]
        on = table.on(row.point.name)
        front = "all" if len(on) == len(table.fronts) > 0 else " ".join(on)
        rows.append([row.point.name, *(setting(row, p) for _, p in settings(table)), *cells, front])
    lines = [columns(rows)] if table.rows else []
    lines += [f"{one.point.name}: {one.state}: {' '.join(one.reason.split())}" for one in table.others]
    if table.rows:
        lines.append(f"*: best; nothing beats it in: quality ({heading(table.quality).lower()}) and that together")
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """Every column, the best in bold."""
    heads = ["", *(words for words, _ in settings(table)), *(heading(name) for name in table.columns), "front"]
    lines = [
        f"# {title(table)}",
        "",
        sentence(table),
        "",
        _line(heads),
        _line(["---", *["---:"] * (len(heads) - 2), "---"]),
    ]
    best = {name: table.best(name) for name in table.columns}
    for row in table.rows:
        cells = [_bold(cell(row, name), row.point.name in best[name]) for name in table.columns]
        front = ", ".join(table.on(row.point.name))
        lines.append(_line([f"`{row.point.name}`", *(setting(row, p) for _, p in settings(table)), *cells, front]))
    if table.others:
        lines.append("")
        lines += [f"- `{one.point.name}`: {one.state}: {' '.join(one.reason.split())}" for one in table.others]
    return "\n".join(lines) + "\n"


def title(table: Table) -> str:
    """What was compared."""
    count = len(table.rows) + len(table.others)
    held = {"steps": "steps", "flops": "predicted FLOPs", "memory": "predicted peak memory"}[table.how]
    return f"{table.stage}: {count} contender{'s' if count != 1 else ''}, equal {held}"


def sentence(table: Table) -> str:
    """Who is best, and who is nearly as good for less."""
    words = heading(table.quality).lower()
    judged = [row for row in table.rows if row.value(table.quality) is not None]
    if not judged:
        return f"No contender has a {words}."
    first, *rest = judged
    said = f"{first.point.name} has the best {words}, {cell(first, table.quality)}."
    if not rest:
        return said
    near = [row for row in rest if _distance(first, row, table.quality) <= CLOSE]
    cheaper: dict[str, list[str]] = {}
    for cost in table.fronts:
        known = [row for row in near if row.value(cost) and first.value(cost)]
        least = min(known, key=lambda row: rank(row, cost), default=None)
        if least is not None and rank(least, cost) < 0.9 * rank(first, cost):
            cheaper.setdefault(least.point.name, []).append(_times(first, least, cost))
    if not cheaper:
        return f"{said} No other within {CLOSE:.0%} of it takes much less of anything."
    return f"{said} Within {CLOSE:.0%} of it: {'; '.join(f'{name} with {listed(costs)}' for name, costs in cheaper.items())}."


def _distance(first: Outcome, other: Outcome, metric: str) -> float:
    a, b = first.value(metric) or 0.0, other.value(metric) or 0.0
    return abs(a - b) / abs(a) if a else float("inf")


def _times(first: Outcome, other: Outcome, cost: str) -> str:
    """E.g. `1.2 MB delivered instead of 269 MB`."""
    unit = lookup(cost).unit
    noun = {"parameters": " trained parameters", "memory": " of memory", "bytes": " to deliver"}.get(COSTS[cost], "")
    return f"{human(other.value(cost), unit)}{noun} instead of {human(first.value(cost), unit)}"


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |"
