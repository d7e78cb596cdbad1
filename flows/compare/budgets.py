"""What each contender may take: as it is, or so much that predicted FLOPs or predicted memory are those of the first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flows.report.words import human
from tasks.core.errors import UserError

if TYPE_CHECKING:
    from flows.compare.points import Point
    from tasks.core.measure import Metrics

EQUAL = ("steps", "flops", "memory")


def check(how: str, stage: str, points: list[Point]) -> None:
    """Refuse what can't be made equal, as far as it can be told before anything is computed.

    Raises:
        UserError: the stage takes no steps, or a contender but the first names its own.
    """
    if how == "steps":
        return
    if not hasattr(getattr(points[0].params, stage), "steps"):
        raise UserError(f"--equal {how}: {stage} takes no steps", "compare it with --equal steps, as it is")
    fixed = {f"{stage}.steps"} | ({f"{stage}.batch_size"} if how == "memory" else set())
    for point in points[1:]:
        if own := sorted(fixed & point.values.keys()):
            raise UserError(
                f"--methods {point.name}: --equal {how} decides {own[0]}", "leave it out, or use -S for all"
            )


def equal(how: str, stage: str, points: list[Point]) -> list[Point]:
    """The points with the budget of the first that can run; one that can't have it is refused.

    Args:
        how: `steps`: as they are. `flops`: steps scaled until predicted FLOPs agree. `memory`: the largest batch whose
            predicted peak memory is no more than the first's, with steps for the same number of sequences.
        stage: the one that is compared.
        points: the contenders, checked; refused ones stay as they are.

    Raises:
        UserError: the first can't be predicted.
    """
    able = [point for point in points if not point.refused]
    if how == "steps" or not able:
        return points
    fit = _flops if how == "flops" else _memory
    first = able[0]
    for figure in ("flops", "peak_memory_bytes"):
        _figure(first, stage, figure)

    def fitted(point: Point) -> Point:
        if point.refused or point is first:
            return point
        try:
            return fit(point, first, stage)
        except UserError as error:  # one that can't be predicted doesn't end the others
            return replace(point, refused=error.message)

    return [fitted(point) for point in points]


def predicted(point: Point, stage: str) -> Metrics:
    """What the stage is predicted to take for `point`."""
    from tasks.ledger import predict

    return predict.plan(point.params, stages=(stage,))[stage]


def _flops(point: Point, first: Point, stage: str) -> Point:
    """Steps until predicted FLOPs agree; a few rounds, since the lengths of batches depend on their number."""
    want, steps = _figure(first, stage, "flops"), _steps(point, stage)
    for _ in range(4):
        found = max(1, round(steps * want / _figure(point, stage, "flops")))
        if found == steps:
            break
        point, steps = point.having({f"{stage}.steps": found}), found
    return point


def _memory(point: Point, first: Point, stage: str) -> Point:
    """The largest batch that fits, by bisection: a larger one never takes less."""
    limit, batch = _figure(first, stage, "peak_memory_bytes"), getattr(first.params, stage).batch_size
    sequences = _steps(first, stage) * batch

    def having(size: int) -> Point:
        return point.having({f"{stage}.batch_size": size, f"{stage}.steps": max(1, round(sequences / size))})

    def needs(size: int) -> float:
        return _figure(having(size), stage, "peak_memory_bytes")

    low, high = 0, sequences + 1  # the first fits, the other doesn't
    while high - low > 1:
        middle = min(2 * low or 1, (low + high) // 2)
        low, high = (middle, high) if needs(middle) <= limit else (low, middle)
    if low:
        return having(low)
    needed, most = human(needs(1), "B"), human(limit, "B")
    return replace(
        point, refused=f"needs {needed} at {stage}.batch_size 1, and {first.name} peaks at {most} (both predicted)"
    )


def _steps(point: Point, stage: str) -> int:
    return int(getattr(point.params, stage).steps)


def _figure(point: Point, stage: str, name: str) -> float:
    value = predicted(point, stage)[name]
    if not value.value:
        raise UserError(f"{name} of {point.name} can't be predicted: {value.note or 'nothing is done'}")
    return float(value.value)
