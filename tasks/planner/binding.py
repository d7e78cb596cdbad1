"""Which limit matters: what relaxing each alone would buy, and what stands in the way where nothing keeps them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NoReturn

from tasks.core.errors import UserError
from tasks.planner.candidates import Candidate, Shape
from tasks.planner.constraints import Constraints, Figure, Limit
from tasks.planner.ladder import Field

FACTOR = 2.0
"""A limit is relaxed to twice as much (a rate or a context: to half) to see what it costs."""

FAR = 1e6
"""How far beyond the limits to look for what could be reached."""

UNITS: dict[Figure, str] = {
    "flops": "FLOP", "seconds": "s", "joules": "J", "dollars": "$", "training_memory_bytes": "B",
    "memory_bytes": "B", "model_bytes": "B", "seconds_per_token": "s/token", "bits_per_byte": "bit/B",
}  # fmt: skip
"""Unit of a figure, as the ledger writes it."""


@dataclass(frozen=True)
class Gain:
    """What relaxing one limit alone would buy.

    Attributes:
        words: the limit as the person gave it.
        figure: what it limits; "context" for the context.
        most: the limit, in the ledger's unit.
        used: what the chosen candidate takes of it.
        better: bits per byte less, if there was twice as much of it (half the context).
    """

    words: str
    figure: Figure | str
    most: float
    used: float | None
    better: float


def gains(field: Field, constraints: Constraints, shapes: Sequence[Shape], chosen: Candidate) -> list[Gain]:
    """Every limit's, the largest first; a wanted quality is no cost and has none."""
    found, now = [], _best(shapes, constraints.limits)
    for limit in constraints.limits:
        if limit.figure == "bits_per_byte":
            continue
        relaxed = constraints.replaced(limit, limit.relaxed(FACTOR)).limits
        better = max(0.0, now - _best(shapes, relaxed))
        found.append(Gain(limit.words, limit.figure, limit.most, chosen.figures[limit.figure], better))
    if constraints.context is not None and constraints.context > 1:
        half = Constraints(constraints.limits, constraints.context // int(FACTOR), constraints.families)
        better = max(0.0, now - _best(field.shapes(half, 1.0), constraints.limits))
        context = constraints.context
        found.append(Gain(f"--context {context}", "context", context, context, better))
    return sorted(found, key=lambda gain: -gain.better)


def _best(shapes: Sequence[Shape], limits: Sequence[Limit]) -> float:
    found = (shape.bits_per_byte(steps) for shape in shapes if (steps := shape.longest(limits)))
    return min(found, default=float("inf"))


def refuse(field: Field, constraints: Constraints, shapes: Sequence[Shape]) -> NoReturn:
    """Say why nothing keeps every limit: the fewest of them that can't hold together, and what could be reached.

    Raises:
        UserError: always.
    """
    reasons = "; ".join(f"{reason} ({count} candidates)" for reason, count in field.left_out.items())
    if not shapes:
        raise UserError(
            f"no candidate can be carried through the lifecycle: {reasons}",
            "change in params.yaml what the reasons name; `leanlm techniques` lists what is allowed",
        )
    _known(constraints.limits, shapes)
    if any(limit.figure == "bits_per_byte" for limit in constraints.limits):
        shapes = field.shapes(constraints, FAR)
    for count in range(1, len(constraints.limits) + 1):
        for group in combinations(constraints.limits, count):
            if not any(shape.longest(group) for shape in shapes):
                free = constraints.context is None or not _possible(field, group, constraints.families)
                raise UserError(*_conflict(group, None if free else constraints.context, shapes))
    raise UserError("nothing keeps every limit when it is predicted exactly", "relax one of them a little")


def _known(limits: Sequence[Limit], shapes: Sequence[Shape]) -> None:
    for limit in limits:
        if limit.figure != "bits_per_byte" and all(shape.base[limit.figure] is None for shape in shapes):
            raise UserError(f"{limit.name}: {limit.figure} can't be predicted with this configuration", "leave it out")


def _possible(field: Field, group: Sequence[Limit], families: tuple[str, ...]) -> bool:
    """Whether the limits hold together at the context as it is configured."""
    return any(shape.longest(group) for shape in field.shapes(Constraints(tuple(group), None, families), 1.0))


def _conflict(group: Sequence[Limit], context: int | None, shapes: Sequence[Shape]) -> tuple[str, str]:
    """Message and hint about limits that can't hold together, or not with that context."""
    names = " and ".join([*(limit.words for limit in group), *([f"--context {context}"] if context else [])])
    relax = "relax one of them to at least that"
    if len(group) == 1:
        (limit,) = group
        short = _short(limit, reach(shapes, limit.figure, ()))
        if context:
            return f"{names}: not possible together; with that context, {short}", relax
        return f"{names}: impossible by itself: {short}", "relax it to at least that"
    halves = []
    for limit in group:
        others = [other for other in group if other is not limit]
        reached = reach(shapes, limit.figure, others)
        if reached is not None:
            halves.append(f"with {' and '.join(other.words for other in others)}, {_short(limit, reached)}")
    return f"{names}: not possible together; {'; '.join(halves)}", relax


def reach(shapes: Sequence[Shape], figure: Figure, limits: Sequence[Limit]) -> float | None:
    """The lowest value of a figure within limits on others; None if nothing keeps those."""
    steps: Callable[[Shape], int] = (
        (lambda shape: shape.longest(limits))
        if figure == "bits_per_byte"
        else lambda shape: shape.shortest(limits) if shape.longest(limits) else 0
    )
    values = [shape.at(count).figures[figure] for shape in shapes if (count := steps(shape))]
    return min((value for value in values if value is not None), default=None)


def _short(limit: Limit, reached: float | None) -> str:
    """How far a limit is from what can be reached, in the unit it was given in."""
    if reached is None:
        return "nothing can be predicted"
    ratio = reached / limit.most
    if limit.name == "--tokens-per-second":
        return f"the fastest is {1 / reached:,.4g} tokens/s, {ratio:.3g} times too slow"
    return f"the least is {_said(limit.figure, reached)}, {ratio:.3g} times the limit"


def _said(figure: Figure, value: float) -> str:
    if figure.endswith("bytes"):
        return f"{value / 1e6:,.4g} MB"
    if figure == "dollars":
        return f"${value:.3g}"
    return f"{value:,.4g} {UNITS[figure]}"
