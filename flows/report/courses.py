"""How training went beside its loss: the gradient's norm, and how near the machine's limit it ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.report.load import Row
from flows.report.plots import decimated, smoothed, window_of
from flows.report.svg import SERIES, draw
from flows.report.words import human, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORM, SHARE, PACE = "grad_norm", "mfu", "tokens_per_second"
SAID = {NORM: ("Gradient norm", ""), SHARE: ("MFU", ""), PACE: ("Tokens per second", "token/s")}
"""Column of the history -> its words and unit."""


def courses(stage: str, rows: Sequence[Row]) -> list[str]:
    """Small plots by step: the gradient's norm, and MFU or, where the machine's rate is not known, tokens per second."""
    columns = (NORM, SHARE if any(SHARE in row for row in rows) else PACE)
    return [plot for column in columns if (plot := course(stage, column, rows))]


def course(stage: str, column: str, rows: Sequence[Row]) -> str:
    """One column by step: every step faint, its running mean; "" where no row has it."""
    known = [row for row in rows if column in row]
    if not known:
        return ""
    words, unit = SAID[column]
    raw, mean = decimated(known), decimated(smoothed(known, window_of(known), column))

    def paint(axes: Axes) -> None:
        axes.plot([r["step"] for r in raw], [r[column] for r in raw], color=SERIES[2], linewidth=0.8, alpha=0.35)
        axes.plot([r["step"] for r in mean], [r[column] for r in mean], color=SERIES[2], linewidth=1.6)
        axes.set_ylabel(words)
        axes.set_ylim(bottom=0)
        axes.xaxis.grid(visible=False)
        axes.margins(x=0.02)
        axes.locator_params("x", integer=True)
        axes.locator_params("y", nbins=3)

    alt = f"{words} of {title(stage)} by step, {human(mean[-1][column], unit)} at the end"
    return draw(f"{column.replace('_', '-')}-{stage}", alt, 120, paint)
