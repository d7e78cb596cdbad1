"""All points, one after the other: shared stages once, then each on the bench; one that fails doesn't end the others."""

from __future__ import annotations

import sys
import time
import uuid

from flows import repro, status
from flows.compare import budgets, record
from flows.compare.bench import Bench
from flows.compare.points import Point, judged
from flows.compare.record import Outcome
from flows.report.words import human
from tasks.params import STAGES

WIDTH = 20
"""Letters of the bar."""


def compare(stage: str, points: list[Point], how: str) -> list[Outcome]:
    """Bring every point up to date and keep what came of it; in the order of `points`.

    Args:
        stage: the one that is compared.
        points: the contenders.
        how: see `budgets.EQUAL`.

    Raises:
        UserError: another run is going on, a stage before failed, or the budget can't be made equal.
    """
    invocation = str(uuid.uuid4())
    budgets.check(how, stage, points)
    with repro.alone():
        _share(stage, invocation)
        points = budgets.equal(how, stage, judged(points, stage))
        expected = {point.name: _seconds(point, stage) for point in points if not point.refused}
        bench, found, began = Bench(stage), [], time.monotonic()
        for point in points:
            if point.refused:
                found.append(record.failed(point, "refused", point.refused))
            else:
                number = sum(one.state != "refused" for one in found)
                _say(number, list(expected), list(expected.values()))
                found.append(_outcome(bench, point, invocation))
            record.write(stage, found[-1])
        sys.stderr.write(f"{_bar(1.0)} {len(expected)} of {len(expected)} in {human(time.monotonic() - began, 's')}\n")
    return found


def _share(stage: str, invocation: str) -> None:
    """Bring up to date what all points read."""
    before = list(STAGES)[: list(STAGES).index(stage)]
    stale = {name: why for name, why in status.stale().items() if name in before or name not in STAGES}
    status.refuse_missing(stale)
    if before and stale:
        sys.stderr.write(f"shared by all: {', '.join(name for name in stale if name in before)}\n")
        repro.bring_up(before[-1], invocation)


def _outcome(bench: Bench, point: Point, invocation: str) -> Outcome:
    try:
        found = bench.run(point, invocation)
    except repro.StageFailed as error:
        reason = error.message
        while reason.startswith(f"{bench.stage}: "):  # the stage says its name, and so does whoever ran it
            reason = reason.removeprefix(f"{bench.stage}: ")
        sys.stderr.write(f"{point.name}: {reason}\n")
        return record.failed(point, "failed", reason)
    return record.done(point, found, bench.history(), found.get("invocation") == invocation)


def _seconds(point: Point, stage: str) -> float:
    """What a point is predicted to take; 0 where that isn't known."""
    value = budgets.predicted(point, stage).get("wall_seconds")
    return float((value and value.value) or 0.0)


def _say(number: int, names: list[str], seconds: list[float]) -> None:
    """The bar over points, before the next one: how far, who, how long."""
    share = sum(seconds[:number]) / sum(seconds) if sum(seconds) else number / len(names)
    left = f"; all that is left about {human(sum(seconds[number:]), 's')}" if number + 1 < len(names) else ""
    about = f"about {human(seconds[number], 's')} where it isn't known yet{left}" if seconds[number] else ""
    sys.stderr.write(f"{_bar(share)} {number + 1} of {len(names)}: {names[number]}  {about}".rstrip() + "\n")


def _bar(share: float) -> str:
    full = round(WIDTH * share)
    return f"[{'#' * full}{'.' * (WIDTH - full)}]"
