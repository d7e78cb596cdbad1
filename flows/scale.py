"""`leanlm scale`: train the ladder rung by rung, each in a child process, fit the law, say what it means for the plan."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from flows import child
from flows.environment import WORK
from flows.forecast import columns
from flows.report.words import human
from flows.repro import RUNNING, StageFailed
from tasks.core.errors import OverBudget, UserError
from tasks.scaling import ladder, law
from tasks.scaling.cost import Cost, predicted_minutes
from tasks.scaling.law import Interval, Point, Record
from tasks.scaling.plan import DATA, Plan, survey
from tasks.scaling.rung import Rung

LOG = WORK / "logs" / "scale.log"
COMMAND = (sys.executable, "-m", "tasks.scaling")
FAR = 10.0
"""Nothing is said of sizes or texts so many times beyond the ladder's."""


def scale(minutes: float, flops: float | None = None) -> Record:
    """Bring the ladder up to date and keep its law in `reports/scaling.json`; finished rungs are not trained again.

    Args:
        minutes: what this call may take; not looked at where `flops` is given.
        flops: what training all rungs may take.

    Raises:
        OverBudget: the budget ended before there was enough for a law; what was trained is kept.
        UserError: nothing to scale, a budget too small for any ladder, a rung that failed.
    """
    from tasks.params import load
    from tasks.scaling.fit import fit

    plan = survey(load())
    cost: Cost = (lambda rung: rung.flops) if flops is not None else predicted_minutes(plan)
    budget, unit = (minutes, "minutes") if flops is None else (flops, "flops")
    rungs = ladder.rungs(plan, budget, unit, cost)
    stopped = _climb(rungs, budget, unit, cost)
    points = [found for rung in rungs if (found := ladder.point(rung, plan)) is not None]
    try:
        fitted = fit(points, _source(plan, points), plan.data, plan.family, plan.bytes_per_token)
    except UserError as error:
        raise OverBudget(f"{stopped}; {error.message}", error.hint) if stopped else error from None
    record = Record(fitted, points, _recipe(plan), _today(), _machine(), _versions())
    law.save(record)
    return record


def _climb(rungs: list[Rung], budget: float, unit: str, cost: Cost) -> str:
    """Train what isn't trained yet; the sentence that says why it stopped early, or ""."""
    left, began = budget, time.monotonic()
    for number, rung in enumerate(rungs, 1):
        if rung.result() is not None:
            left -= rung.flops if unit == "flops" else 0.0  # minutes are this call's, FLOPs the ladder's
            continue
        used = (time.monotonic() - began) / 60 if unit == "minutes" else 0.0
        done = f"rung {number} of {len(rungs)}"
        said = f"{rung.parameters:,} parameters, {rung.steps} steps, about {human(cost(rung) * 60, 's')}"
        sys.stderr.write(f"{done}: {said if unit == 'minutes' else said.rpartition(',')[0]}\n")
        limit = ["--seconds", f"{(left - used) * 60:g}"] if unit == "minutes" else ["--flops", f"{left:g}"]
        if left - used <= 0 or (code := _train(rung, limit)) == OverBudget.code:
            return f"--{unit} {budget:g} is used up before {done}"
        if code != 0:
            raise _failure(done, code, rung.folder / "error.txt")
        left -= rung.flops if unit == "flops" else 0.0
    return ""


def _train(rung: Rung, limit: list[str]) -> int:
    """The exit code of the child process that trains one rung."""
    command = [*COMMAND, str(rung.prepare()), str(DATA), *limit]
    return child.run(command, LOG, RUNNING, {"PYTHONUNBUFFERED": "1"})


def _failure(done: str, code: int, note: Path) -> StageFailed:
    if note.exists():
        return StageFailed(f"{done}: {note.read_text(encoding='utf-8').strip()}", code=code)
    return StageFailed(f"{done}: its process ended with {code}", f"all it said: {LOG}; what is trained is kept")


def _source(plan: Plan, points: list[Point]) -> str:
    sizes = [point.parameters for point in points] or [0]
    steps = [point.steps for point in points] or [0]
    spans = f"{human(min(sizes), '')} to {human(max(sizes), '')} parameters, {min(steps)} to {max(steps)} steps"
    return f"{len(points)} runs of {plan.family}, {spans}"


def _recipe(plan: Plan) -> dict[str, object]:
    pretrain = plan.params.pretrain
    planned = {
        name: getattr(pretrain, name) for name in ("batch_size", "context_length", "weight_decay", "max_grad_norm")
    }
    return {"family": plan.family, **planned, **ladder.RECIPE}


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _machine() -> dict[str, object]:
    from tasks.ledger import machine

    return machine.describe()


def _versions() -> dict[str, str]:
    return {"python": sys.version.split()[0], **{name: version(name) for name in ("torch", "transformers", "scipy")}}


def table(record: Record) -> str:
    """The rungs: size, text, what came out, what the law makes of it."""
    rows = [["size", "parameters", "text", "steps", "learning rate", "bits per byte", "law", "training", "FLOPs"]]
    for point in sorted(record.points, key=lambda p: (p.parameters, p.train_bytes)):
        fitted = record.law.bits_per_byte(point.parameters, point.train_bytes, point.distinct_bytes).value
        rows.append(
            [
                _size(point),
                human(point.parameters, ""),
                human(point.train_bytes, "B"),
                str(point.steps),
                f"{point.learning_rate:.3g}",
                f"{point.bits_per_byte:.3f}",
                f"{fitted:.3f}",
                human(point.seconds, "s"),
                human(point.flops, "FLOP"),
            ]
        )
    return columns(rows)


def _size(point: Point) -> str:
    """Width and depth, by whatever name the family has for them."""
    found = [point.config[name] for name in ("hidden_size", "num_hidden_layers") if name in point.config]
    return " x ".join(str(number) for number in found) or human(point.parameters, "")


def said(record: Record) -> list[str]:
    """The fit with its intervals, and what it says of the configured run, in sentences."""
    from tasks.params import load

    found = record.law
    exponents = ", ".join(f"{name} {_interval(found.bounds(name))}" for name in ("E", "alpha", "beta"))
    lines = [
        "bits per byte = E + A / parameters^alpha + B / bytes^beta, parameters active and without embeddings",
        f"{exponents}; A {found.A:.4g}, B {found.B:.4g}; residual {found.residual:.2%}",
    ]
    if found.unsure:
        names = " and ".join(found.unsure)
        lines.append(f"{names} hardly determined by these runs: trust the intervals of losses, no further")
    plan = survey(load())
    if plan.data != found.data or plan.family != found.family:
        return [*lines, "the configured run has another text or family: this law says nothing of it"]
    expected = found.bits_per_byte(plan.parameters, plan.train_bytes, plan.distinct_bytes)
    lines.append(
        f"planned: {human(plan.parameters, '')} parameters, {human(plan.train_bytes, 'B')} of text "
        f"({plan.params.pretrain.steps} steps): {_interval(expected)} bits per byte"
    )
    return [*lines, _optimal(record, plan)]


def _optimal(record: Record, plan: Plan) -> str:
    """What the same FLOPs, counted as 6 per parameter and token, could do; nothing where that lies far beyond the runs."""
    found = record.law
    size, text = found.compute_optimal(6 * plan.parameters * plan.train_bytes / found.bytes_per_token)
    if not (_near(size, [p.parameters for p in record.points]) and _near(text, [p.train_bytes for p in record.points])):
        return f"compute-optimal for the same 6ND: more than {FAR:g} times beyond the ladder's runs, so it is not said"
    step = plan.train_bytes / plan.params.pretrain.steps
    return (
        f"compute-optimal for the same 6ND: {human(round(size), '')} parameters, {human(round(text), 'B')} of text "
        f"({text / step:,.0f} steps): {_interval(found.bits_per_byte(size, text, plan.distinct_bytes))} bits per byte"
    )


def _near(value: float, runs: list[float]) -> bool:
    return min(runs) / FAR <= value <= max(runs) * FAR


def _interval(value: Interval) -> str:
    return f"{value.value:.3f} ({value.low:.3f}..{value.high:.3f})"
