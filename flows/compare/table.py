"""The table of a comparison: a row per point, a column per metric, the best of each, and who is on which front."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass

from flows.compare.record import Outcome
from flows.report.words import human, label
from tasks.core.errors import UserError
from tasks.ledger.vocabulary import VOCABULARY, lookup

QUALITY = ("validation_loss", "bits_per_byte")
"""What is compared unless told otherwise: the first of these that a point has."""
COSTS = {
    "trainable_parameters": "parameters",
    "peak_memory_bytes": "memory",
    "wall_seconds": "seconds",
    "energy_joules": "joules",
    "delivery_bytes": "bytes",
}
"""What quality is traded for, and its short word."""
ORDER = (
    "trainable_parameters", "optimizer_bytes", "activation_bytes", "peak_memory_bytes",
    "peak_device_memory_bytes", "adapter_bytes", "delivery_bytes",
    "model_bytes", "flops", "training_seconds", "wall_seconds", "energy_joules", "dollars", "bits_per_byte",
    "forgetting_bits_per_byte",
)  # fmt: skip
"""The columns behind quality, where any point has a figure."""
SCORES = ("task_score", "task_loss")
"""Behind those, every task's figure that any point has: `task_score/<task>/<metric>`."""


@dataclass(frozen=True)
class Table:
    """A comparison, ready to be shown.

    Attributes:
        stage: what was compared.
        how: what was held equal.
        quality: the metric that is traded for what it takes.
        rows: points with figures, the best first.
        others: points without, in their order.
        columns: metrics, quality first.
        fronts: cost -> names of the points that no other beats in quality and that cost.
    """

    stage: str
    how: str
    quality: str
    rows: list[Outcome]
    others: list[Outcome]
    columns: list[str]
    fronts: dict[str, list[str]]

    def best(self, column: str) -> list[str]:
        """The points with the best figure of a column, as it is shown; none where all are alike or no way is better."""
        better = lookup(column).better
        shown = {row.point.name: cell(row, column) for row in self.rows if row.value(column) is not None}
        if not better or len(set(shown.values())) < 2:
            return []
        top = min((r for r in self.rows if r.value(column) is not None), key=lambda row: rank(row, column))
        return [name for name, text in shown.items() if text == cell(top, column)]

    def on(self, name: str) -> list[str]:
        """Short words of the costs in which a point is on the front."""
        return [COSTS[cost] for cost, members in self.fronts.items() if name in members]


def rank(row: Outcome, metric: str) -> float:
    """A figure turned so that less is better; what is missing comes last."""
    value = row.value(metric)
    if value is None or value != value:
        return float("inf")
    return -value if lookup(metric).better == "higher" else value


def made(stage: str, how: str, outcomes: list[Outcome], quality: str | None = None) -> Table:
    """The table of what came of all points.

    Raises:
        UserError: `quality` is no metric that says which way is better, or no point has it.
    """
    done = [one for one in outcomes if one.state == "done"]
    every = {*ORDER, *(name for one in done for name in one.metrics)}
    known = {name for name in every if any(one.value(name) is not None for one in done)}
    check(quality)
    chosen = quality or next((name for name in QUALITY if name in known), QUALITY[0])
    if quality and done and quality not in known:
        judged = sorted(name for name in known if lookup(name).resource == "quality" and lookup(name).better)
        raise UserError(f"--quality {quality}: no contender was judged by it", f"there are: {', '.join(judged)}")
    rows = sorted(done, key=lambda one: rank(one, chosen))
    scores = sorted(name for name in known if name.partition("/")[0] in SCORES)
    columns = [chosen, *(name for name in (*ORDER, *scores) if name in known and name != chosen)]
    fronts = {cost: front(rows, cost, chosen) for cost in COSTS if cost in known}
    return Table(stage, how, chosen, rows, [one for one in outcomes if one not in done], columns, fronts)


def check(quality: str | None) -> None:
    """Refuse a quality that can't be one, before anything is computed.

    Raises:
        UserError: it isn't in the vocabulary, or has no direction.
    """
    if quality and (quality.partition("/")[0] not in VOCABULARY or not lookup(quality).better):
        good = [name for name, metric in VOCABULARY.items() if metric.resource == "quality" and metric.better]
        raise UserError(f"--quality {quality}: not a metric that says what is better", f"e.g. {', '.join(good)}")


def front(rows: list[Outcome], cost: str, quality: str) -> list[str]:
    """Names of the points that no other is at least as good as in both, and better in one."""
    known = [row for row in rows if row.value(cost) is not None and row.value(quality) is not None]
    at = {row.point.name: (rank(row, quality), rank(row, cost)) for row in known}
    return [
        name
        for name, (a, b) in at.items()
        if not any(x <= a and y <= b and (x, y) != (a, b) for other, (x, y) in at.items() if other != name)
    ]


def cell(row: Outcome, metric: str) -> str:
    """A figure as a person reads it, "-" where there is none."""
    value = row.value(metric)
    return "-" if value is None else human(value, lookup(metric).unit)


def heading(metric: str) -> str:
    """The words of a metric, e.g. "Peak memory"."""
    words, qualifier = label(metric)
    return f"{words} ({qualifier})" if qualifier else words


def settings(table: Table) -> list[tuple[str, str]]:
    """Column and parameter of what the points of an equal budget differ in."""
    names = {"flops": ("steps",), "memory": ("batch_size", "steps")}.get(table.how, ())
    return [(name.replace("_", " "), f"{table.stage}.{name}") for name in names]


def setting(row: Outcome, parameter: str) -> str:
    """The value a point has of a parameter."""
    value: object = row.point.params
    for part in parameter.split("."):
        value = getattr(value, part)
    return str(value)


def as_csv(table: Table) -> str:
    """Every figure with every digit; failed and refused points with their reason."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["point", "state", *table.columns, "front", "reason"])
    for row in (*table.rows, *table.others):
        values = ["" if row.value(name) is None else row.value(name) for name in table.columns]
        writer.writerow([row.point.name, row.state, *values, " ".join(table.on(row.point.name)), row.reason])
    return stream.getvalue()


def as_json(table: Table) -> str:
    """The same for programs, with units and how each figure was got."""
    rows = [
        {
            "point": row.point.name,
            "values": row.point.values,
            "state": row.state,
            "reason": row.reason,
            "front": table.on(row.point.name),
            "metrics": {
                name: {"value": value.value, "unit": lookup(name).unit, "method": value.method}
                for name in table.columns
                if (value := row.entry(name)) is not None
            },
        }
        for row in (*table.rows, *table.others)
    ]
    document = {"stage": table.stage, "equal": table.how, "quality": table.quality, "points": rows}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
