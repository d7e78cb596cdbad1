"""The plots: loss curves, bits per byte, predictions, latency, sizes. Each is an inline SVG, or "" with nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, get_args

from flows.report.headline import Point
from flows.report.load import Row
from flows.report.predicted import CLOSE, Comparison
from flows.report.svg import INK, MUTED, PAGE, SERIES, draw, logarithmic
from flows.report.words import human, ratio, title
from tasks.ledger.vocabulary import Resource

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 600
"""Points of a curve that are drawn at most."""
RESOURCES: tuple[Resource, ...] = get_args(Resource)


def decimated(rows: Sequence[Row], most: int = MOST) -> list[Row]:
    """At most `most` of `rows`, evenly, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def smoothed(rows: Sequence[Row], window: int, column: str = "loss") -> list[Row]:
    """A column averaged over `window` rows about each."""
    sums, half, count = [0.0, *accumulate(row[column] for row in rows)], window // 2, len(rows)
    spans = ((max(0, i - half), min(count, i + half + 1)) for i in range(count))
    means = ((sums[end] - sums[start]) / (end - start) for start, end in spans)
    return [{"step": row["step"], column: mean} for row, mean in zip(rows, means, strict=True)]


def window_of(rows: Sequence[Row]) -> int:
    """Rows the drawn mean spans: a thirtieth of the run."""
    return max(1, len(rows) // 30)


def loss(stage: str, rows: Sequence[Row]) -> str:
    """Loss by step: every step faint, its running mean, and the validation losses as rings."""
    if not rows:
        return ""
    validation = decimated([row for row in rows if "validation_loss" in row])

    def paint(axes: Axes) -> None:
        raw, mean = decimated(rows), decimated(smoothed(rows, window_of(rows)))
        axes.plot([r["step"] for r in raw], [r["loss"] for r in raw], color=SERIES[0], linewidth=0.8, alpha=0.35)
        axes.plot([r["step"] for r in mean], [r["loss"] for r in mean], color=SERIES[0], linewidth=1.8)
        for row in validation:
            tip = f"tip:step {row['step']:g}, validation loss {row['validation_loss']:.3f}"
            axes.plot(
                row["step"], row["validation_loss"], "o", markersize=6, markerfacecolor=PAGE,
                markeredgecolor=SERIES[1], markeredgewidth=1.8, gid=tip, clip_on=False,
            )  # fmt: skip
        axes.set_xlabel("step")
        axes.set_ylabel("nats per token")
        axes.xaxis.grid(visible=False)
        axes.margins(x=0.02)
        axes.locator_params("x", integer=True)

    return draw(f"loss-{stage}", f"Loss of {title(stage)} by step, ending at {rows[-1]['loss']:.3f}", 230, paint)


def bits_per_byte(points: Sequence[Point], floors: dict[str, float]) -> str:
    """Bits per byte after each stage as dots, the floors as lines across."""
    if not points:
        return ""
    values = [point.value for point in points]

    def paint(axes: Axes) -> None:
        axes.plot(range(len(values)), values, color=SERIES[0], linewidth=1.2, alpha=0.5)
        for index, value in enumerate(values):
            axes.plot(index, value, "o", color=SERIES[0], markersize=7)
            axes.annotate(f"{value:.3f}", (index, value), (0, 8), textcoords="offset points", ha="center")
        for said, value in floors.items():
            axes.axhline(value, color=SERIES[1], linewidth=1.2, linestyle=(0, (4, 3)))
            below = value < max(floors.values())
            axes.annotate(
                f"{said}  {value:.3f}", (1, value), (0, -4 if below else 4), xycoords=("axes fraction", "data"),
                textcoords="offset points", ha="right", va="top" if below else "bottom", color=SERIES[1], fontsize=10,
            )  # fmt: skip
        names = [
            title(p.stage).replace(" ", "\n") + (f"\n{p.qualifier.replace('/', ' ')}" if p.qualifier else "")
            for p in points
        ]
        axes.set_xticks(range(len(values)), names)
        low, high = min([*values, *floors.values()]), max([*values, *floors.values()])
        room = max(high - low, 0.05 * high)
        axes.set_ylim(max(0.0, low - 0.25 * room), high + 0.25 * room + 1e-9)
        axes.set_xlim(-0.6, len(values) - 0.1)
        axes.set_ylabel("bits per byte")
        axes.xaxis.grid(visible=False)

    said = ", ".join(f"{title(p.stage)} {p.qualifier} {p.value:.3f}".replace("  ", " ") for p in points)
    return draw("quality", f"Bits per byte by stage: {said}", 250, paint)


def ratios(found: Sequence[Comparison]) -> str:
    """Measured over predicted on a log axis, a row per stage, a dot per metric."""
    known = [one for one in found if one.ratio is not None and one.ratio > 0]
    if not known:
        return ""
    stages = list(dict.fromkeys(one.stage for one in known))
    bounds = [bound for one in known for bound in (one.low, one.high) if bound]
    reach = max(2.2, *(one.factor * 1.15 for one in known), *(max(bound, 1 / bound) for bound in bounds))

    def paint(axes: Axes) -> None:
        axes.axvspan(1 / CLOSE, CLOSE, color=SERIES[0], alpha=0.08, linewidth=0)
        axes.axvline(1, color=MUTED, linewidth=1)
        for one in known:
            rank = RESOURCES.index(one.resource)
            beside = [other for other in known if (other.stage, other.resource) == (one.stage, one.resource)]
            apart = 0.09 * (beside.index(one) / len(beside) - 0.5)  # or bands of one resource would hide each other
            height = stages.index(one.stage) + (rank - 2.5) * 0.11 + apart
            tip = f"tip:{title(one.stage)}, {one.words.lower()}: {one.ratio_text}"
            colour, hollow = SERIES[rank], one.inside is False
            if one.low and one.high:
                axes.plot([one.low, one.high], [height] * 2, color=colour, linewidth=2, alpha=0.35)
                tip += f", expected {one.low:.2f}–{one.high:.2f}×: {one.place}"
            axes.plot(
                one.ratio or 1, height, "o", color=colour, markerfacecolor=PAGE if hollow else colour, markersize=6.5,
                alpha=0.85, gid=tip,
            )  # fmt: skip
        logarithmic(axes.xaxis, 1 / reach, reach, lambda tick: f"{tick:g}×")
        axes.set_yticks(range(len(stages)), [title(stage) for stage in stages])
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.set_xlabel("measured / predicted")

    worst = max(known, key=lambda one: one.factor)
    alt = f"Measured over predicted by stage; furthest from 1: {worst.words} of {title(worst.stage)}, {ratio(worst.ratio)}"
    return draw("ratios", alt, 70 + 34 * len(stages), paint)


def latency(engines: dict[str, dict[str, float]]) -> str:
    """Per engine: time to first token (diamond), and time between tokens from p50 over p95 to p99, in seconds."""
    engines = {name: marks for name, marks in engines.items() if any(value > 0 for value in marks.values())}
    if not engines:
        return ""
    every = [value for marks in engines.values() for value in marks.values() if value > 0]
    shape = {"p50": ("o", INK), "p95": ("o", PAGE), "p99": ("|", INK)}

    def paint(axes: Axes) -> None:
        for row, (name, marks) in enumerate(engines.items()):
            colour = SERIES[row % len(SERIES)]
            between = [marks[mark] for mark in shape if mark in marks]
            axes.plot(between, [row] * len(between), color=colour, linewidth=2)
            for mark, value in marks.items():
                marker, fill = shape.get(mark, ("D", INK))
                axes.plot(
                    value, row, marker, markersize=10 if marker == "|" else 7, markeredgecolor=colour, markeredgewidth=1.8,
                    markerfacecolor=PAGE if fill == PAGE else colour, gid=f"tip:{name}, {mark}: {human(value, 's')}",
                )  # fmt: skip
        logarithmic(axes.xaxis, min(every) / 1.5, max(every) * 1.5, lambda tick: f"{tick * 1e3:g} ms")
        axes.set_yticks(range(len(engines)), list(engines))
        axes.set_ylim(len(engines) - 0.5, -0.5)

    return draw("latency", f"Latency by engine: {', '.join(engines)}", 50 + 42 * len(engines), paint)


def sizes(files: dict[str, float]) -> str:
    """Bytes of each file as bars, in the order given."""
    files = {name: value for name, value in files.items() if value > 0 and math.isfinite(value)}
    if not files:
        return ""

    def paint(axes: Axes) -> None:
        axes.barh(range(len(files)), list(files.values()), height=0.55, color=SERIES[0], alpha=0.85, linewidth=0)
        for row, value in enumerate(files.values()):
            axes.annotate(human(value, "B"), (value, row), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(files)), list(files))
        axes.set_ylim(len(files) - 0.4, -0.6)
        axes.set_xlim(0, max(files.values()) * 1.25)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)

    said = ", ".join(f"{name} {human(value, 'B')}" for name, value in files.items())
    return draw("sizes", f"Bytes of each file: {said}", 24 + 28 * len(files), paint)
