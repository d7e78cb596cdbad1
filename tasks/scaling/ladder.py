"""Which small runs make the ladder: the configured family scaled down, times durations, within a budget. No torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tasks.core.errors import UserError
from tasks.design.family import Family
from tasks.models import Config
from tasks.scaling.cost import Cost
from tasks.scaling.law import Point
from tasks.scaling.plan import Plan, size_of
from tasks.scaling.rung import WORK, Rung

SIZES = (5, 4, 3)
"""How many sizes of model, the most wanted first; three are needed to tell an exponent from a floor."""

SHARES = (0.25, 0.5, 1.0)
"""Durations, as shares of the longest. Much shorter runs are still on the plateau of the first steps, where a larger model
is worse than a smaller one and no power law holds."""

LARGEST_SHARE = 0.5
"""The largest rung has at most this share of the planned parameters: else the plan itself could as well be trained."""

FEWEST_STEPS = 10
"""A shorter run tells nothing of a longer one."""

RECIPE = {
    "learning_rate": "pretrain.learning_rate x planned width / width",
    "warmup": "the same share of the steps as planned",
    "schedule": "pretrain.schedule, to each run's own end",
}
"""How a rung's hyper-parameters follow from the planned ones."""


def rungs(plan: Plan, budget: float, unit: str, cost: Cost) -> list[Rung]:
    """The runs of the ladder, cheapest first; the same again for the same plan and budget, as long as `work` is kept.

    Args:
        plan: the run to predict.
        budget: what all of them together may take.
        unit: of the budget, for the message: `minutes` or `flops`.
        cost: of a rung, in the budget's unit.

    Raises:
        UserError: the budget is too small for any ladder.
    """
    words = [plan.params.model_dump(mode="json", include={"seed", "design", "pretrain", "evaluate"}), plan.config]
    asked = json.dumps([*words, plan.data, unit, budget], sort_keys=True).encode()
    key = hashlib.sha256(asked + Path(__file__).read_bytes()).hexdigest()[:16]
    kept = WORK / f"ladder-{key}.json"
    try:
        return [Rung(**values) for values in json.loads(kept.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        found = _chosen(plan, budget, unit, cost)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([asdict(rung) for rung in found]), encoding="utf-8")
    return found


def _chosen(plan: Plan, budget: float, unit: str, cost: Cost) -> list[Rung]:
    """The richest set of sizes whose runs may last half as long as planned; if none may, the fewest sizes."""
    planned, choices = plan.params.pretrain.steps, list(_choices(plan))
    if planned < FEWEST_STEPS * 4:
        raise UserError(
            f"pretrain.steps: found {planned}; runs of a half, a quarter and less of it would be too short to tell anything",
            f"plan at least {FEWEST_STEPS * 4} steps",
        )
    fitting = [grid for members in choices if (grid := _longest(plan, members, budget, cost))]
    if not fitting:
        least = sum(map(cost, _grid(plan, choices[-1], 4 * FEWEST_STEPS)))
        digit = 10.0 ** (math.floor(math.log10(least)) - 2) if unit == "flops" else 1.0
        shown = f"{math.ceil(least / digit) * digit:.4g}"
        raise UserError(
            f"--{unit}: found {budget:g}; the smallest ladder of this family takes about {shown}",
            f"give --{unit} {shown} or more, or lower pretrain.batch_size or pretrain.context_length",
        )
    long = [grid for grid in fitting if max(rung.steps for rung in grid) >= planned / 2]
    return sorted((long or fitting[-1:])[0], key=cost)


def _longest(plan: Plan, members: list[Family], budget: float, cost: Cost) -> list[Rung]:
    """The longest runs of these members that fit the budget together; none if not even the shortest do."""
    top = float(plan.params.pretrain.steps)
    while sum(map(cost, grid := _grid(plan, members, top))) > budget:
        if top <= 4 * FEWEST_STEPS:
            return []
        top = max(top / math.sqrt(2), 4 * FEWEST_STEPS)
    return grid


def _grid(plan: Plan, members: list[Family], top: float) -> list[Rung]:
    steps = sorted({max(FEWEST_STEPS, round(top * share)) for share in SHARES})
    return [_rung(plan, member, count) for member in members for count in steps]


def _choices(plan: Plan) -> Iterator[list[Family]]:
    """Sets of members to train, the richest first: evenly spread between the smallest and half of the planned size."""
    members: list[tuple[int, Family]] = []
    for member in plan.params.design.technique.ladder():
        size = size_of(member.config(plan.config["vocab_size"]))
        if size > LARGEST_SHARE * plan.parameters and len(members) >= min(SIZES):
            break
        members.append((size, member))
    for count in SIZES:
        if count > len(members):
            continue
        low, high = math.log(members[0][0]), math.log(members[-1][0])
        wanted = [low + (high - low) * place / (count - 1) for place in range(count)]
        picked = {min(members, key=lambda m, at=at: abs(math.log(m[0]) - at))[0] for at in wanted}  # type: ignore[misc]
        if len(picked) == count:
            yield [member for size, member in members if size in picked]
    if len(members) > min(SIZES):  # a budget that only the smallest fit into
        yield [member for _, member in members[: min(SIZES)]]


def learning_rate(rate: float, tuned: Config, wanted: Config) -> float:
    """The peak learning rate of the model `wanted`, from that which suits `tuned`.

    Adam's best rate for matrices falls with their width (arXiv:2203.03466, table 8).
    """
    return float(f"{rate * tuned['hidden_size'] / wanted['hidden_size']:.3g}")


def _rung(plan: Plan, member: Family, steps: int) -> Rung:
    params, config = plan.params, member.config(plan.config["vocab_size"])
    planned = params.pretrain
    flops = plan.flops(config, steps)
    rate = learning_rate(planned.learning_rate, plan.config, config)
    warmup = min(steps, round(planned.schedule.warmup_steps * steps / planned.steps))
    schedule = planned.schedule.model_copy(update={"warmup_steps": warmup})
    changes = {"steps": steps, "learning_rate": rate, "schedule": schedule, "eval_every": steps + 1}
    sizes = {name: getattr(member, name) for name in member.sizes(64)}
    return Rung(
        sizes=sizes,
        blueprint=config,
        pretrain=planned.model_copy(update=changes).model_dump(mode="json"),
        # the same ruler; what it would write for reading is cut short
        evaluate=params.evaluate.model_copy(update={"sample_tokens": 1, "tasks": ()}).model_dump(mode="json"),
        seed=params.seed,
        parameters=size_of(config),
        flops=flops,
        data=plan.data,
    )


def point(rung: Rung, plan: Plan) -> Point | None:
    """A finished rung as the law reads it; None while it is unfinished."""
    found = rung.result()
    if found is None:
        return None
    return Point(
        config=rung.sizes,
        parameters=rung.parameters,
        train_bytes=rung.tokens * plan.bytes_per_token,
        distinct_bytes=plan.distinct_bytes,
        steps=rung.steps,
        learning_rate=float(rung.pretrain["learning_rate"]),
        **found,
    )
