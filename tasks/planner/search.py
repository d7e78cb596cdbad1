"""The search: what nothing else beats in everything, and of what keeps every limit, the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from tasks.core.errors import UserError
from tasks.core.measure import Metrics
from tasks.ledger.machine import Machine, describe
from tasks.params import Params
from tasks.planner.binding import Gain, gains, refuse
from tasks.planner.candidates import Candidate, Shape
from tasks.planner.configure import chosen_families, configured
from tasks.planner.constraints import Constraints, Figure, Limit, of_budget
from tasks.planner.ladder import Field, survey

HALVINGS = 5
"""A shape is shown at the longest training within the limits, and at this many halves of it."""

TRADED: tuple[Figure, ...] = ("bits_per_byte", "seconds", "model_bytes", "seconds_per_token")
"""What candidates on the front trade against one another."""

ALIKE = 1e-3
"""Candidates whose predicted bits per byte differ by no more than this share are equally good."""

PRECISION = 1e-3
"""How exactly, as a share, the steps of the chosen one fill what the limits allow."""

SLACK = 2.0
"""How far beyond the limits shapes are looked at, so that it is known what relaxing one would buy."""


@dataclass(frozen=True)
class Plan:
    """What a search found.

    Attributes:
        field: what it was drawn from.
        constraints: every limit, the budget's and the machine's among them.
        chosen: lowest predicted bits per byte of those that keep every limit.
        front: what nothing else beats in all of `TRADED`, best quality first; the chosen one among them.
        considered: everything that keeps every limit.
        gains: what each limit costs; the binding one first.
        left_out: reason -> how many candidates.
    """

    field: Field
    constraints: Constraints
    chosen: Candidate
    front: list[Candidate]
    considered: list[Candidate]
    gains: list[Gain]
    left_out: dict[str, int]

    @cached_property
    def values(self) -> dict[str, Any]:
        """What params.yaml must say for the chosen one."""
        return self.field.values(self.chosen)

    @cached_property
    def params(self) -> Params:
        """The configuration with the chosen one in it."""
        return configured(self.field.params, self.values)

    @cached_property
    def stages(self) -> dict[str, Metrics]:
        """Every stage's prediction for the chosen one."""
        return self.field.stages(self.params)

    @property
    def binding(self) -> Gain | None:
        """The limit whose relaxation alone buys the most; None if none buys anything."""
        return self.gains[0] if self.gains and self.gains[0].better > 0 else None


def search(params: Params, machine: Machine, asked: Constraints) -> Plan:
    """The best model that keeps to what is asked, to `budget:` and to the machine's memory.

    Raises:
        UserError: nothing does; says which limit, or which of them together, and by how much.
    """
    chosen_families(asked.families)
    field = survey(params, machine)
    constraints = Constraints((*asked.limits, *of_budget(params.budget), room(machine)), asked.context, asked.families)
    if field.quality.fitted is None and any(limit.figure == "bits_per_byte" for limit in constraints.limits):
        raise UserError(
            "--bits-per-byte: no law that its runs determine has been fitted to your text, and another text's can't promise",
            "`leanlm scale --minutes 60` trains a ladder of small models and fits one",
        )
    shapes = field.shapes(constraints, SLACK)
    left_out = dict(field.left_out)
    best, chosen = _exact(field, constraints, shapes)
    considered = [one for shape in shapes for one in lengths(shape, constraints.limits)]
    considered = [chosen, *(one for one in considered if (one.shape, one.steps) != (best.shape, best.steps))]
    return Plan(
        field=field,
        constraints=constraints,
        chosen=chosen,
        front=front(considered),
        considered=considered,
        gains=gains(field, constraints, shapes, chosen),
        left_out=left_out,
    )


def _exact(field: Field, constraints: Constraints, shapes: list[Shape]) -> tuple[Candidate, Candidate]:
    """The best candidate as the lines between two predictions have it, and as its exact prediction lets it be."""
    left = list(shapes)
    while True:
        best = choose(left, constraints.limits)
        if best is None:
            refuse(field, constraints, shapes)
        chosen = within(field, best, constraints.limits)
        if chosen.keeps(constraints.limits):
            return best, chosen
        left = [shape for shape in left if shape is not best.shape]


def room(machine: Machine) -> Limit:
    """The memory there is, which no stage may exceed."""
    size = machine.memory_bytes or describe()["memory_bytes"]
    return Limit(f"memory of {machine.name or 'this machine'}", "training_memory_bytes", float(size))


def choose(shapes: Iterable[Shape], limits: Sequence[Limit]) -> Candidate | None:
    """Lowest predicted bits per byte within the limits; of those within `ALIKE` of it, the smallest file."""
    found = [shape.at(steps) for shape in shapes if (steps := shape.longest(limits))]
    return preferred(found)


def preferred(candidates: Sequence[Candidate]) -> Candidate | None:
    """The smallest file among the best in quality, of those the quickest to train; None of none."""
    best = min((one.bits_per_byte for one in candidates), default=inf)
    alike = [one for one in candidates if one.bits_per_byte <= best * (1 + ALIKE)]
    order: tuple[Figure, ...] = ("model_bytes", "seconds", "bits_per_byte", "seconds_per_token")
    return min(alike, key=lambda one: tuple(_figure(one, figure) for figure in order), default=None)


def within(field: Field, best: Candidate, limits: Sequence[Limit]) -> Candidate:
    """`best` with as many steps as its exact prediction allows.

    Corrections from earlier runs depend on a run's size, so costs aren't quite linear in the steps.
    """
    shape, limits = best.shape, [one for one in limits if one.figure != "bits_per_byte"]  # which more steps only help
    low, high = shape.least, min(shape.most, 2 * best.steps)
    kept = field.exactly(best)
    if kept.keeps(limits):
        low = best.steps
    else:
        kept, high = field.exactly(shape.at(low)), best.steps
    while high - low > max(1, PRECISION * low):
        middle = field.exactly(shape.at((low + high) // 2))
        low, high, kept = (middle.steps, high, middle) if middle.keeps(limits) else (low, middle.steps, kept)
    return kept


def lengths(shape: Shape, limits: Sequence[Limit]) -> list[Candidate]:
    """The shape at the longest training within the limits, and at halves of it."""
    longest = shape.longest(limits)
    steps = [longest >> halving for halving in range(HALVINGS + 1)]
    found = [shape.at(count) for count in steps if longest and count >= shape.least]
    return [one for one in found if one.keeps(limits)]


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other one equals or beats in everything that is traded, best quality first."""
    rows = sorted(((tuple(_figure(one, f) for f in TRADED), i, one) for i, one in enumerate(candidates)))
    kept: list[tuple[float, ...]] = []
    result = []
    for row, _, one in rows:
        if not any(all(a <= b for a, b in zip(other, row, strict=True)) for other in kept):
            kept.append(row)
            result.append(one)
    return result


def _figure(candidate: Candidate, figure: Figure) -> float:
    value = candidate.figures[figure]
    return inf if value is None else value
