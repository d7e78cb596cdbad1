"""The budget: refuses what is predicted to exceed it (`tasks.ledger.watch` stops what does exceed it while it runs)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.core.errors import OverBudget, UserError
from tasks.core.measure import Metrics
from tasks.ledger import Budget

METRIC_OF = {
    "seconds": "wall_seconds",
    "joules": "energy_joules",
    "dollars": "dollars",
    "flops": "flops",
    "memory_bytes": "peak_memory_bytes",
}
"""Budgeted resource -> the metric that counts it."""

UNITS = {"seconds": "s", "joules": "J", "dollars": "$", "flops": "FLOP", "memory_bytes": "B"}

SMALLER = {
    "data": "data.max_documents",
    "design": "evaluate.max_bytes",
    "pretrain": "pretrain.steps, pretrain.batch_size or a smaller design",
    "finetune": "finetune.steps, finetune.batch_size or finetune.context_length",
    "compress": "evaluate.max_bytes",
    "deploy_profile": "deploy_profile.repeats, deploy_profile.engines or evaluate.max_bytes",
}
"""Stage -> what makes it cheaper."""

LESS_MEMORY = {
    "data": "data.tokenizer.train.max_bytes or data.max_documents",
    "design": "a smaller design",
    "pretrain": "pretrain.batch_size, pretrain.context_length or a smaller design, raise "
    "pretrain.gradient_accumulation_steps, or set pretrain.gradient_checkpointing to full",
    "finetune": "finetune.batch_size or finetune.context_length, or use finetune.method: lora",
    "compress": "evaluate.batch_size or evaluate.context_length",
    "deploy_profile": "evaluate.batch_size, evaluate.context_length or deploy_profile.prompt_tokens",
}
"""Stage -> what makes it fit into less memory."""


def limits(budget: Budget) -> dict[str, float]:
    """The resources that have a limit."""
    values = {name: getattr(budget, name) for name in METRIC_OF}
    return {name: float(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Excess:
    """One limit that doesn't hold.

    Attributes:
        resource: as in `budget:`.
        limit: of it.
        total: what was spent and what is predicted, together (memory: the largest peak).
        used: of it, by stages that are finished.
        dearest: the stage ahead that takes the most, and how much.
    """

    resource: str
    limit: float
    total: float
    used: float
    dearest: tuple[str, float]

    def __str__(self) -> str:
        share = f"{self.dearest[0]} {amount(self.resource, self.dearest[1])}"
        if self.resource == "memory_bytes":
            return f"budget.memory_bytes: {amount(self.resource, self.limit)}, but a peak of {share} is predicted"
        already = f" ({amount(self.resource, self.used)} of it spent already)" if self.used else ""
        return (
            f"budget.{self.resource}: {amount(self.resource, self.limit)}, but this lifecycle is predicted to take "
            f"{amount(self.resource, self.total)}{already}; the most by {share}"
        )

    @property
    def raised(self) -> str:
        """The limit that would do."""
        return f"budget.{self.resource} to at least {_ceiling(self.total)}"


def excesses(plan: Mapping[str, Metrics], budget: Budget, spent: Mapping[str, Metrics] | None = None) -> list[Excess]:
    """The limits that `plan`, after what was `spent`, is predicted to exceed. What can't be predicted isn't counted."""
    found = []
    for resource, limit in limits(budget).items():
        ahead, before = amounts(plan, resource), amounts(spent or {}, resource)
        taken = total(resource, plan, spent)
        if taken is not None and taken > limit:
            dearest = max(ahead.items(), key=lambda item: item[1])
            used = sum(value for stage, value in before.items() if stage not in ahead)
            found.append(Excess(resource, limit, taken, used, dearest))
    return found


def total(resource: str, plan: Mapping[str, Metrics], spent: Mapping[str, Metrics] | None = None) -> float | None:
    """What `plan` takes of a resource with what was spent (memory: the largest peak ahead); None: nothing is known."""
    ahead = amounts(plan, resource)
    if not ahead:
        return None
    if resource == "memory_bytes":
        return max(ahead.values())
    return sum({**amounts(spent or {}, resource), **ahead}.values())


def refuse(
    plan: Mapping[str, Metrics],
    budget: Budget,
    spent: Mapping[str, Metrics] | None = None,
    ways_out: Callable[[], str] | None = None,
) -> None:
    """Let `plan` pass, or refuse it before anything runs.

    Args:
        plan: predicted metrics of the stages that will run, priced.
        budget: the limits.
        spent: metrics of the stages that are finished, priced. A resource nobody could read or predict is not counted.
        ways_out: says what would fit, for the hint (`tasks.ledger.ways_out.offer`); None: name the parameters alone.

    Raises:
        OverBudget: what was spent and what is predicted exceed a limit together (memory: one stage alone exceeds it).
    """
    found = excesses(plan, budget, spent)
    if not found:
        return
    raised = " and ".join(excess.raised for excess in found)
    otherwise = f"; {ways_out()}" if ways_out is not None else f", or {_smaller(found[0])}"
    raise OverBudget("\n".join(map(str, found)), f"raise {raised}{otherwise}")


def amounts(metrics: Mapping[str, Metrics], resource: str) -> dict[str, float]:
    """Stage -> amount of a resource, where it is known."""
    name = METRIC_OF[resource]
    values = {stage: entries[name].value for stage, entries in metrics.items() if name in entries}
    return {stage: float(value) for stage, value in values.items() if value is not None}


def _smaller(excess: Excess) -> str:
    stage = excess.dearest[0]
    named = (LESS_MEMORY if excess.resource == "memory_bytes" else SMALLER).get(stage, stage)
    return f"make {stage} smaller ({named})"


def amount(resource: str, value: float) -> str:
    """A value a person can read, e.g. `1.23e+12 FLOP`, `512 MiB`."""
    if resource == "memory_bytes":
        return f"{value / (1 << 20):,.0f} MiB"
    return f"{value:.3g} {UNITS[resource]}"


def _ceiling(value: float) -> str:
    """`value` rounded up to three digits, so that a limit of that much really suffices."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1.0
    return f"{(math.floor(value / unit) + 1) * unit:.4g}"


def check_memory(
    stage: str,
    predicted_peak: float,
    available: float,
    ways_out: Callable[[], str] | None = None,
    where: str = "this machine",
) -> None:
    """Refuse a stage that won't fit into the machine.

    Args:
        stage: its name.
        predicted_peak: bytes its process is predicted to need.
        available: bytes a new process can take (`machine.available_memory()`).
        ways_out: says what would fit, for the hint; None: name the parameters alone.
        where: whose bytes those are.

    Raises:
        UserError: the predicted peak is larger; names what would make it fit.
    """
    if predicted_peak > available:
        raise UserError(
            f"{stage}: needs about {amount('memory_bytes', predicted_peak)} of memory, "
            f"and {where} has {amount('memory_bytes', available)} free",
            f"lower {LESS_MEMORY.get(stage, stage)}" + (f"; {ways_out()}" if ways_out is not None else ""),
        )
