"""Drawing with matplotlib so that a plot follows the page: its colours, its font, its width, its dark mode."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

WIDTH = 420.0
"""Width of a plot in its own units; a unit is a pixel or a little less on a phone, a little more on a desk."""

COLOURS = {
    "#010101": "var(--ink)", "#020202": "var(--muted)", "#030303": "var(--rule)", "#040404": "var(--page)",
    "#050501": "var(--c1)", "#050502": "var(--c2)", "#050503": "var(--c3)", "#050504": "var(--c4)",
    "#050505": "var(--c5)", "#050506": "var(--c6)",
}  # fmt: skip
"""matplotlib can't name a CSS variable: it draws in these, and they are exchanged afterwards."""
INK, MUTED, RULE, PAGE, *SERIES = COLOURS

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 11.0, "axes.labelsize": 11.0, "text.color": INK, "axes.labelcolor": MUTED,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED,
    "axes.edgecolor": RULE, "axes.grid": True, "grid.color": RULE, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "xtick.major.size": 0,
    "ytick.major.size": 0, "xtick.minor.size": 0, "ytick.minor.size": 0, "lines.solid_capstyle": "round",
    "text.parse_math": False,
}  # fmt: skip


def draw(name: str, alt: str, height: float, paint: Callable[[Axes], None]) -> str:
    """An inline `<svg>` of `WIDTH` x `height`, scaled by the page.

    Args:
        name: unique in the page; its ids begin with it.
        alt: what the plot shows, for those who can't see it.
        height: in the plot's own units.
        paint: draws onto the axes; an artist whose gid is `tip:TEXT` shows TEXT under the pointer.
    """
    import matplotlib
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        bare = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=bare)
    return _adapt(stream.getvalue(), name, alt, height)


def _adapt(text: str, name: str, alt: str, height: float) -> str:
    body = text[text.index("<g id=") : text.rindex("</svg>")]
    body = re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", body)
    body = body.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([\w.]+)', body))
    body = re.sub(r' id="([\w.:-]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r'(url\(|href=")#', rf"\1#{name}-", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", body)
    body = re.sub("|".join(COLOURS), lambda m: COLOURS[m[0]], body)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><")
    opening = f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{html.escape(alt)}">'
    return f"{opening}{body}</svg>"


def logarithmic(axis: Axis, low: float, high: float, say: Callable[[float], str], most: int = 7) -> None:
    """A log axis over [low, high] with at most `most` ticks at 1, 2 and 5 times a power of ten, said by `say`."""
    set_scale = axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale  # type: ignore[attr-defined]
    set_scale("log")
    set_limits = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim  # type: ignore[attr-defined]
    set_limits(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    axis.set_ticks(ticks, labels=[say(tick) for tick in ticks])
    axis.set_ticks([], minor=True)
