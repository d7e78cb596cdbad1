"""The pictures of a comparison: quality against each cost, and the loss curves of all points in one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from flows.compare.record import Outcome
from flows.compare.table import Table, cell, heading, rank
from flows.report.plots import smoothed, window_of
from flows.report.svg import MUTED, PAGE, SERIES, draw, logarithmic
from flows.report.words import human
from tasks.ledger.vocabulary import lookup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHAPES = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚"}
"""With more points than colours, the shape tells them apart: matplotlib's names, and what the legend shows."""
DASHES: tuple[tuple[str | tuple[int, tuple[float, ...]], str], ...] = (
    ("solid", ""),
    ((0, (5.0, 2.0)), "6 2"),
    ((0, (1.5, 1.5)), "2 2"),
    ((0, (6.0, 2.0, 1.5, 2.0)), "6 2 2 2"),
    ((0, (9.0, 3.0)), "9 3"),
    ((0, (1.0, 3.0)), "1 3"),
)
"""The same for lines: matplotlib's style, and SVG's."""
SPREAD = 5.0
"""Costs that are at most so many times apart are drawn on a linear axis."""
NAMED = 8
"""Points of a front that are named in the picture."""


class Mark(NamedTuple):
    """How a point is drawn.

    Attributes:
        colour: its number on the page, from 1.
        marker: matplotlib's name of its shape.
        dash: which of `DASHES`.
    """

    colour: int
    marker: str
    dash: int


def marks(table: Table) -> dict[str, Mark]:
    """Point -> how it is drawn, everywhere the same."""
    shapes, found = list(SHAPES), {}
    for index, row in enumerate(table.rows):
        turn = index // len(SERIES)
        found[row.point.name] = Mark(index % len(SERIES) + 1, shapes[turn % len(shapes)], turn % len(DASHES))
    return found


def fronts(table: Table) -> list[tuple[str, str]]:
    """Heading and picture of each cost that two points or more have a figure of."""
    return [(heading(cost), picture) for cost in table.fronts if (picture := _front(table, cost))]


def _front(table: Table, cost: str) -> str:
    shown = [row for row in table.rows if row.value(cost) and row.value(table.quality) is not None]
    if len(shown) < 2:
        return ""
    drawn, on, unit = marks(table), table.fronts[cost], lookup(cost).unit
    line = sorted((row for row in shown if row.point.name in on), key=lambda row: rank(row, cost))

    def paint(axes: Axes) -> None:
        axes.plot(
            [_at(row, cost) for row in line], [_at(row, table.quality) for row in line], drawstyle="steps-post",
            color=MUTED, linewidth=1.1, alpha=0.6,
        )  # fmt: skip
        for row in shown:
            mark, best = drawn[row.point.name], row.point.name in on
            colour = SERIES[mark.colour - 1]
            tip = f"{row.point.name}: {cell(row, table.quality)}, {human(row.value(cost), unit)}"
            axes.plot(
                [_at(row, cost)], [_at(row, table.quality)], mark.marker, markersize=8 if best else 6.5, color=colour,
                markerfacecolor=colour if best else PAGE, markeredgewidth=1.6, clip_on=False, zorder=4, gid=f"tip:{tip}",
            )  # fmt: skip
        _name(axes, line, cost, table.quality)
        _scale(axes, [_at(row, cost) for row in shown], unit)
        axes.set_xlabel(heading(cost).lower())
        axes.set_ylabel(heading(table.quality).lower())
        axes.margins(y=0.16)
        if lookup(table.quality).better == "higher":
            axes.invert_yaxis()  # what is better is always down and to the left

    said = ", ".join(f"{row.point.name} {human(row.value(cost), unit)}" for row in line)
    alt = f"{heading(table.quality)} against {heading(cost).lower()}; nothing beats: {said}"
    return draw(f"front-{cost.replace('_', '-')}", alt, 260, paint)


def _scale(axes: Axes, values: list[float], unit: str) -> None:
    """Logarithmic where the costs are far apart; else a power of ten would be the only tick."""
    low, high = min(values), max(values)
    if high > SPREAD * low:
        reach = (high / low) ** 0.08
        logarithmic(axes.xaxis, low / reach, high * reach, lambda tick: human(tick, unit), most=5)
        return
    room = 0.08 * (high - low) or 0.1 * high
    axes.set_xlim(low - room, high + room)
    axes.locator_params("x", nbins=4)
    axes.xaxis.set_major_formatter(lambda tick, _: human(tick, unit))


def _name(axes: Axes, line: list[Outcome], cost: str, quality: str) -> None:
    """The names of the front's points, turn by turn above and below, so that neighbours don't overlap."""
    if len(line) > NAMED:
        return
    for turn, row in enumerate(line):
        at = (_at(row, cost), _at(row, quality))
        axes.annotate(
            row.point.name, at, (0, 9 if turn % 2 == 0 else -9), textcoords="offset points", ha="center",
            va="bottom" if turn % 2 == 0 else "top", fontsize=10, color=MUTED,
        )  # fmt: skip


def curves(table: Table) -> str:
    """The running mean of every point's loss, by step; "" where there is none."""
    drawn = marks(table)
    shown = [row for row in table.rows if len(_loss(row)) > 1]
    if not shown:
        return ""

    def paint(axes: Axes) -> None:
        for row in reversed(shown):  # the best on top
            mark, rows = drawn[row.point.name], _loss(row)
            mean = smoothed(rows, max(3, window_of(rows)))
            axes.plot(
                [one["step"] for one in mean], [one["loss"] for one in mean], color=SERIES[mark.colour - 1], linewidth=1.6,
                linestyle=DASHES[mark.dash][0], gid=f"tip:{row.point.name}: ends at {mean[-1]['loss']:.3f}",
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("training loss, nats per token")
        axes.xaxis.grid(visible=False)
        axes.margins(x=0.02)
        axes.locator_params("x", integer=True)

    ends = ", ".join(f"{row.point.name} {_loss(row)[-1]['loss']:.3f}" for row in shown)
    return draw("curves", f"Training loss by step, ending at: {ends}", 300, paint)


def _loss(row: Outcome) -> list[dict[str, float]]:
    """The rows of a history whose loss is a number: one that diverged ends there."""
    return [one for one in row.rows if math.isfinite(one.get("loss", math.nan))]


def _at(row: Outcome, metric: str) -> float:
    """A figure that is known to be there."""
    return float(row.value(metric) or 0.0)
