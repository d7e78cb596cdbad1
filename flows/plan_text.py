"""A plan in a terminal: the choice, what limits it, what every stage will take, and what else was on the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.forecast import columns, table
from flows.report.words import human

if TYPE_CHECKING:
    from tasks.planner import Candidate, Gain, Plan
    from tasks.planner.network import Traffic

UNITS = {
    "flops": "FLOP", "seconds": "s", "joules": "J", "dollars": "$", "training_memory_bytes": "B", "memory_bytes": "B",
    "model_bytes": "B", "seconds_per_token": "s", "bits_per_byte": "", "context": "token",
}  # fmt: skip

SHOWN = 10
"""Candidates of the front that are listed, evenly from best to cheapest."""

REASONS = 2
"""Reasons for leaving candidates out that a terminal is shown; the page has all."""

FRONT = {
    "bits per byte": "bits_per_byte",
    "lifecycle": "seconds",
    "energy": "joules",
    "money": "dollars",
    "file": "model_bytes",
    "per token": "seconds_per_token",
    "served in": "memory_bytes",
}
"""Heading -> figure."""


def text(plan: Plan) -> str:
    """Everything a terminal shows of a plan."""
    parts = [sentence(plan), quality(plan), "", limits(plan), binding(plan), "", table(plan.stages), "", front(plan)]
    parts += left_out(plan)
    if plan.field.machine.assumed:
        parts.append(f"assumed: {plan.field.machine.assumed}")
    return "\n".join(parts)


def left_out(plan: Plan) -> list[str]:
    """How many candidates a stage couldn't carry, and why: the most frequent reasons."""
    reasons = sorted(plan.left_out.items(), key=lambda item: -item[1])
    said = [f"{count} candidates left out: {reason}" for reason, count in reasons[:REASONS]]
    more = sum(count for _, count in reasons[REASONS:])
    return [*said, f"{more} more left out for {len(reasons) - REASONS} other reasons: see the page"] if more else said


def sentence(plan: Plan) -> str:
    """What was chosen."""
    chosen = plan.chosen
    shape = chosen.shape
    passes = chosen.tokens * shape.quality.bytes_per_token / shape.quality.distinct
    return (
        f"{shape.family}: {human(shape.parameters, '')} parameters ({human(shape.active, '')} active without embeddings), "
        f"{chosen.steps:,} steps, {human(chosen.tokens, '')} tokens ({passes:.2g} passes over the text), "
        f"served as {shape.kind}"
    )


def quality(plan: Plan) -> str:
    """How good it is expected to be, and by which law."""
    value = plan.chosen.quality
    bounds = "" if value.low is None or value.high is None else f" ({value.low:.3f} to {value.high:.3f})"
    families = {one.shape.family for one in plan.considered}
    blind = "; it knows active size and text alone, not what sets families apart" if len(families) > 1 else ""
    return f"predicted {plan.chosen.bits_per_byte:.3f} bits per byte{bounds}; {value.method}: {value.note}{blind}"


def limits(plan: Plan) -> str:
    """Every limit, what the choice takes of it, and what twice as much of it would buy."""
    rows = [["limit", "at most", "taken", "bits per byte less with twice as much"]]
    rows += [[gain.words, amount(gain, gain.most), amount(gain, gain.used), bought(gain)] for gain in plan.gains]
    return columns(rows)


def amount(gain: Gain, value: float | None) -> str:
    """A limit, or what is taken of it, as the person gave it: a rate stays a rate."""
    if value is not None and gain.words.startswith("--tokens-per-second"):
        return f"{1 / value:,.4g} tokens/s"
    return human(value, UNITS[gain.figure])


def bought(gain: Gain) -> str:
    """Bits per byte that relaxing it alone would save."""
    return f"{gain.better:.4f}" if gain.better > 0 else "nothing"


def binding(plan: Plan) -> str:
    """Which limit binds."""
    if plan.binding is None:
        if plan.chosen.steps >= plan.chosen.shape.most:
            return (
                "no limit binds: the text does, which is read as often as it still teaches much; more text would help"
            )
        return "no limit binds by itself: twice as much of any one alone would buy nothing"
    half = "half of it" if _floor(plan.binding) else "twice as much"
    return f"binding: {plan.binding.words} ({half} would buy {plan.binding.better:.4f} bits per byte)"


def _floor(gain: Gain) -> bool:
    """Whether it demands something, instead of allowing it."""
    return gain.figure == "context" or gain.words.startswith("--tokens-per-second")


def front(plan: Plan) -> str:
    """Some of the Pareto front, the chosen one marked."""
    shown = spread(plan)
    rows = [["", "family", "parameters", "served as", "steps", *FRONT]]
    rows += [row(one, "*" if one is plan.chosen else "") for one in shown]
    count = f"{len(shown)} of {len(plan.front)}" if len(shown) < len(plan.front) else str(len(shown))
    heading = f"Pareto front of {len(plan.considered)} candidates within the limits ({count} shown; *: chosen)"
    return f"{heading}\n{columns(rows)}"


def spread(plan: Plan, most: int = SHOWN) -> list[Candidate]:
    """At most `most` of the front, evenly, the chosen one first."""
    others = [one for one in plan.front if one is not plan.chosen]
    if len(others) >= most:
        others = [others[round(i * (len(others) - 1) / (most - 2))] for i in range(most - 1)]
    return [plan.chosen, *others]


def row(one: Candidate, mark: str) -> list[str]:
    """A candidate's cells."""
    shape = one.shape
    figures = [human(one.figures[figure], UNITS[figure]) for figure in FRONT.values()]  # type: ignore[index]
    return [mark, shape.family, human(shape.parameters, ""), shape.kind, f"{one.steps:,}", *figures]


def network(sent: Sequence[Traffic], workers: int) -> str:
    """What workers send one another, and why a time lacks."""
    rows = [[f"{workers} workers", "", "sent per step", "sent in all", "on the link"]]
    rows += [
        [one.stage, one.algorithm, human(one.step_bytes.value, "B"), human(one.total_bytes.value, "B"),
         "-" if one.seconds.value is None else human(one.seconds.value, "s")]
        for one in sent
    ]  # fmt: skip
    lacking = {one.seconds.note for one in sent if one.seconds.value is None}
    return "\n".join(
        [columns(rows), *(f"-: {reason}" for reason in sorted(lacking)), "by each worker, beside its work"]
    )
