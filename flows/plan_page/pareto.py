"""Predicted quality against what it takes: a plot for each thing that is traded."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flows.plan_text import UNITS
from flows.report.svg import INK, MUTED, PAGE, SERIES, draw, logarithmic
from flows.report.words import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.planner import Candidate, Plan

MOST = 300
"""Candidates off the front that are drawn, evenly."""

SHAPES = {"^": "▲", "s": "■", "D": "◆"}
MARKERS = ["o", *SHAPES]
"""With more families than colours, the shape tells them apart: matplotlib's names, and what the legend shows."""

HIGHEST = 2.5
"""Candidates with that many times the chosen one's bits per byte are off the picture."""


class Trade(NamedTuple):
    """One axis of the front."""

    figure: str
    words: str


TRADES = (
    Trade("seconds", "time of the whole lifecycle"),
    Trade("model_bytes", "bytes of the served file"),
    Trade("seconds_per_token", "time of a generated token"),
)


def colours(plan: Plan) -> dict[str, tuple[int, str]]:
    """Family -> number of its colour on the page (1 to 6), and its marker."""
    names = list(dict.fromkeys(one.shape.family for one in plan.considered))
    return {
        name: (i % len(SERIES) + 1, MARKERS[i // len(SERIES) % len(MARKERS)]) for i, name in enumerate(sorted(names))
    }


def plots(plan: Plan) -> list[tuple[str, str]]:
    """Heading and picture, for each trade that can be predicted."""
    return [(trade.words, _plot(plan, trade)) for trade in TRADES if _known(plan.considered, trade.figure)]


def _known(candidates: list[Candidate], figure: str) -> list[Candidate]:
    return [one for one in candidates if one.figures[figure]]  # type: ignore[index]


def _plot(plan: Plan, trade: Trade) -> str:
    shown, marks = _known(plan.considered, trade.figure), colours(plan)
    on = {id(one) for one in plan.front}
    off = [one for one in shown if id(one) not in on]
    best = [one for one in shown if id(one) in on and one is not plan.chosen]
    highest = HIGHEST * plan.chosen.bits_per_byte
    best = [one for one in best if one.bits_per_byte <= highest]
    worst = max(one.bits_per_byte for one in (*best, plan.chosen))
    off = [one for one in off if one.bits_per_byte <= worst]
    off = off[:: max(1, len(off) // MOST)]
    unit_size, said = _scale(trade, min(_at(one, trade) for one in (*off, *best, plan.chosen)))

    def paint(axes: Axes) -> None:
        for group, size, alpha in ((off, 3.0, 0.3), (best, 5.5, 0.85)):
            for one in group:
                colour, marker = marks[one.shape.family]
                axes.plot(
                    _at(one, trade) / unit_size, one.bits_per_byte, marker, color=SERIES[colour - 1], markersize=size, alpha=alpha,
                    markeredgewidth=0, gid=f"tip:{tip(one, trade)}",
                )  # fmt: skip
        _mark(axes, plan.chosen, trade, unit_size, SERIES[marks[plan.chosen.shape.family][0] - 1])
        values = [_at(one, trade) / unit_size for one in (*off, *best, plan.chosen)]
        low, high = min(values) / 1.25, max(values) * 1.25
        for most in (limit.most / unit_size for limit in plan.constraints.limits if limit.figure == trade.figure):
            if most < 4 * high:
                high = max(high, most * 1.1)
                axes.axvline(most, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_ylim(plan.chosen.bits_per_byte - 0.06 * worst, worst * 1.04)
        unit = UNITS[trade.figure]
        logarithmic(
            axes.xaxis, low, high, (lambda tick: f"{tick:g}") if said else lambda tick: human(tick, unit), most=5
        )
        axes.set_xlabel(f"{trade.words}, {said}" if said else trade.words)
        axes.set_ylabel("bits per byte")

    chosen = plan.chosen
    alt = f"Predicted bits per byte against {trade.words}; chosen: {tip(chosen, trade)}"
    return draw(f"pareto-{trade.figure.replace('_', '-')}", alt, 270, paint)


def _mark(axes: Axes, chosen: Candidate, trade: Trade, unit_size: float, colour: str) -> None:
    """The chosen one, ringed and named."""
    at = (_at(chosen, trade) / unit_size, chosen.bits_per_byte)
    axes.plot(
        *at, "o", markersize=11, markerfacecolor=colour, markeredgecolor=PAGE, markeredgewidth=2, zorder=5,
        gid=f"tip:chosen: {tip(chosen, trade)}",
    )  # fmt: skip
    axes.plot(*at, "o", markersize=14, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.4, zorder=5)
    axes.annotate(
        "chosen", at, (0, 12), textcoords="offset points", ha="center", va="bottom", color=MUTED, fontsize=10, zorder=6
    )


def _scale(trade: Trade, least: float) -> tuple[float, str]:
    """Long times are drawn in minutes or hours, whose ticks are round: seconds in one, and its name."""
    if trade.figure != "seconds" or least < 60:
        return 1.0, ""
    return (3600.0, "hours") if least > 7200 else (60.0, "minutes")


def _at(one: Candidate, trade: Trade) -> float:
    return float(one.figures[trade.figure] or 0.0)  # type: ignore[index]


def tip(one: Candidate, trade: Trade) -> str:
    """What a point says under the pointer."""
    shape = one.shape
    return (
        f"{shape.family}, {human(shape.parameters, '')} parameters, {shape.kind}, {one.steps} steps: "
        f"{one.bits_per_byte:.3f} bits per byte, {human(_at(one, trade), UNITS[trade.figure])}"
    )
