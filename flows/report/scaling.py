"""The scaling ladder in the report: the law, its interval at the size that was trained, and whether it held."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.report.load import ARTIFACTS, Lifecycle
from flows.report.svg import INK, PAGE, SERIES, draw, logarithmic
from flows.report.words import human
from tasks.core.errors import UserError
from tasks.scaling import law
from tasks.scaling.law import Interval, Record
from tasks.scaling.plan import size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Check:
    """What the law says of the model that was pretrained, and what came out.

    Attributes:
        parameters: active ones without embeddings.
        text: bytes of training text it saw.
        expected: bits per byte by the law.
        measured: bits per byte of stage pretrain.
    """

    parameters: int
    text: float
    expected: Interval
    measured: float

    @property
    def inside(self) -> bool:
        """Whether the measured loss lies in the interval."""
        return self.expected.low <= self.measured <= self.expected.high


@dataclass(frozen=True)
class Scaling:
    """The section: its sentences and its plot; `damage` where the file is there and can't be read."""

    record: Record | None
    verdict: str = ""
    inside: bool | None = None
    plot: str = ""
    damage: str = ""


def section(life: Lifecycle) -> Scaling | None:
    """What there is to say; None where no ladder has been trained."""
    try:
        record = law.read()
    except UserError as error:
        return Scaling(None, damage=error.message)
    if record is None:
        return None
    found = check(record, life)
    if isinstance(found, str):
        return Scaling(record, found, None, _plot(record, None))
    words = (
        f"Predicted {found.expected.value:.3f} ({found.expected.low:.3f}..{found.expected.high:.3f}) bits per byte for "
        f"{human(found.parameters, '')} parameters over {human(found.text, 'B')} of text, measured "
        f"{found.measured:.3f}: {'inside' if found.inside else 'outside'} the interval."
    )
    return Scaling(record, words, found.inside, _plot(record, found))


def check(record: Record, life: Lifecycle) -> Check | str:
    """The law beside the pretrained model; a sentence where the two can't be compared."""
    measured, tokens = life.value("pretrain", "bits_per_byte"), life.value("pretrain", "tokens")
    if measured is None or not tokens or not life.blueprint:
        return "Nothing has been pretrained yet that the law could be held against."
    found, family = record.law, life.settings["design.method"]
    if family != found.family:
        return f"The pretrained model is of the family {family}, the ladder of {found.family}: not compared."
    key = law.data_key(ARTIFACTS / "data")
    if key != found.data:
        return "The text has changed since the ladder was trained: not compared."
    if life.settings["pretrain.init"] != "data/none":
        return "Pretraining went on from an existing model, the ladder starts from scratch: not compared."
    parameters, text = size_of(life.blueprint), tokens * found.bytes_per_token
    expected = found.bits_per_byte(parameters, text, life.value("data", "train_bytes"))
    return Check(parameters, text, expected, measured)


def _plot(record: Record, found: Check | None) -> str:
    """Bits per byte by bytes of text, a line per size: the runs as dots, the law as lines, the check as a bar."""
    sizes = sorted({point.parameters for point in record.points})
    texts = [point.train_bytes for point in record.points] + ([found.text] if found else [])
    low, high = min(texts) * 0.85, max(texts) * 1.2
    along = [low * (high / low) ** (i / 40) for i in range(41)]

    def paint(axes: Axes) -> None:
        for rank, size in enumerate(sizes):
            colour: Any = SERIES[rank % len(SERIES)]
            curve = [record.law.bits_per_byte(size, text).value for text in along]
            axes.plot(along, curve, color=colour, linewidth=1.4, label=human(size, ""))
            for point in record.points:
                if point.parameters == size:
                    tip = f"tip:{human(size, '')} parameters, {point.steps} steps: {point.bits_per_byte:.3f}"
                    axes.plot(point.train_bytes, point.bits_per_byte, "o", color=colour, markersize=6, gid=tip)
        if found:
            _paint_check(axes, found)
        logarithmic(axes.xaxis, low, high, lambda tick: human(tick, "B"))
        axes.set_xlabel("training text")
        axes.set_ylabel("bits per byte")

    alt = (
        f"Bits per byte of {len(record.points)} runs of {len(sizes)} sizes by training text, and the law fitted to them"
    )
    return draw("scaling", alt, 260, paint)


def _paint_check(axes: Axes, found: Check) -> None:
    tip = f"tip:measured {found.measured:.3f}, predicted {found.expected.low:.3f} to {found.expected.high:.3f}"
    axes.plot([found.text] * 2, [found.expected.low, found.expected.high], color=INK, linewidth=2.2)
    if math.isfinite(found.measured):
        axes.plot(
            found.text, found.measured, "o", markersize=8, markerfacecolor=PAGE, markeredgecolor=INK,
            markeredgewidth=1.8, gid=tip,
        )  # fmt: skip


def legend(found: Scaling) -> list[tuple[str, str]]:
    """Colour and words of every line of the plot."""
    if found.record is None:
        return []
    sizes = sorted({point.parameters for point in found.record.points})
    return [(f"var(--c{rank % len(SERIES) + 1})", f"{human(size, '')} parameters") for rank, size in enumerate(sizes)]
