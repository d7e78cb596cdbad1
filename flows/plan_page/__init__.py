"""The plan as one self-contained HTML page: the front, the choice, what limits it, and a roofline for each phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import plan_text
from flows.environment import WORK
from flows.forecast import COLUMNS
from flows.plan_page import pareto, rooflines
from flows.plan_text import UNITS
from flows.report.page import environment, save
from flows.report.words import human, title
from tasks.ledger.vocabulary import lookup

if TYPE_CHECKING:
    from tasks.planner import Candidate, Plan
    from tasks.planner.network import Traffic

PATH = WORK / "plan.html"
"""Where the page goes unless told otherwise."""

LISTED = 16
"""Candidates of the front in the table."""


def write(plan: Plan, sent: Sequence[Traffic] = (), path: Path | None = None) -> Path:
    """Write the page, atomically, and say where (default: work/plan.html).

    Raises:
        UserError: `path` can't be written.
    """
    return save(render(plan, sent), path or PATH)


def render(plan: Plan, sent: Sequence[Traffic] = ()) -> str:
    """The page."""
    page: str = environment(Path(__file__).parent).get_template("plan.html").render(**_context(plan, sent))
    return page


def _context(plan: Plan, sent: Sequence[Traffic]) -> dict[str, Any]:
    return {
        "plan": plan,
        "machine": plan.field.machine.name or "this machine",
        "sentence": plan_text.sentence(plan),
        "quality": plan_text.quality(plan),
        "binding": plan_text.binding(plan),
        "limits": [
            (gain.words, plan_text.amount(gain, gain.most), plan_text.amount(gain, gain.used), plan_text.bought(gain))
            for gain in plan.gains
        ],
        "figures": _figures(plan.chosen),
        "pareto": pareto.plots(plan),
        "families": pareto.colours(plan),
        "shapes": pareto.SHAPES,
        "headings": list(plan_text.FRONT),
        "front": [(one is plan.chosen, plan_text.row(one, "")) for one in plan_text.spread(plan, LISTED)],
        "stage_headings": list(COLUMNS),
        "stages": _stages(plan),
        "total": [human(value, UNITS[figure]) for figure, value in _totals(plan.chosen)],
        "values": sorted(plan.values.items()),
        "rooflines": rooflines.pictures(plan),
        "sent": [
            (title(one.stage), one.algorithm, *(human(value.value, unit) for value, unit in _amounts(one)))
            for one in sent
        ],
        "lacking": sorted({one.seconds.note for one in sent if one.seconds.value is None}),
    }


def _amounts(one: Traffic) -> list[tuple[Any, str]]:
    return [(one.step_bytes, "B"), (one.total_bytes, "B"), (one.seconds, "s")]


def _figures(chosen: Candidate) -> list[tuple[str, str]]:
    """The large figures at the top."""
    told = chosen.figures
    rate = told["seconds_per_token"]
    return [
        ("Bits per byte", human(told["bits_per_byte"], "")),
        ("Whole lifecycle", human(told["seconds"], "s")),
        ("Energy", human(told["joules"], "J")),
        ("Money", human(told["dollars"], "$")),
        ("File", human(told["model_bytes"], "B")),
        ("Served in", human(told["memory_bytes"], "B")),
        ("Tokens per second", "n/a" if not rate else human(1 / rate, "")),
    ]


def _totals(chosen: Candidate) -> list[tuple[str, float | None]]:
    """Of the whole lifecycle, in the order of the stages' columns."""
    names = ("flops", "seconds", "training_memory_bytes", "model_bytes", "joules", "dollars")
    return [(name, chosen.figures[name]) for name in names]  # type: ignore[index]


def _stages(plan: Plan) -> list[tuple[str, list[tuple[str, str]]]]:
    """Stage -> figure and note of each column."""
    rows = []
    for stage, metrics in plan.stages.items():
        cells = []
        for metric in COLUMNS.values():
            value = metrics.get(metric)
            known = value is not None and value.value is not None
            shown = human(value.value, lookup(metric).unit) if value is not None and known else ""
            cells.append((shown, value.note if value is not None else ""))
        rows.append((stage, cells))
    return rows
