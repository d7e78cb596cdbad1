"""The budget: refuses what is predicted to exceed it, and stops what does exceed it while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import OverBudget, UserError
from tasks.core.measure import Metrics, Value, measured, missing
from tasks.ledger import Budget, Prices
from tasks.ledger.meter import Meter, Spent
from tasks.ledger.report import priced

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
    "pretrain": "pretrain.steps, pretrain.batch_size or design.llama.hidden_size",
    "finetune": "finetune.steps, finetune.batch_size or finetune.context_length",
    "compress": "evaluate.max_bytes",
    "deploy_profile": "deploy_profile.repeats, deploy_profile.engines or evaluate.max_bytes",
}
"""Stage -> what makes it cheaper."""

LESS_MEMORY = {
    "data": "data.tokenizer.train.max_bytes or data.max_documents",
    "design": "design.llama.hidden_size",
    "pretrain": "pretrain.batch_size, pretrain.context_length or design.llama.hidden_size",
    "finetune": "finetune.batch_size or finetune.context_length, or use finetune.method: lora",
    "compress": "evaluate.batch_size or evaluate.context_length",
    "deploy_profile": "evaluate.batch_size, evaluate.context_length or deploy_profile.prompt_tokens",
}
"""Stage -> what makes it fit into less memory."""


def limits(budget: Budget) -> dict[str, float]:
    """The resources that have a limit."""
    values = {name: getattr(budget, name) for name in METRIC_OF}
    return {name: float(value) for name, value in values.items() if value is not None}


def refuse(plan: Mapping[str, Metrics], budget: Budget, spent: Mapping[str, Metrics] | None = None) -> None:
    """Let `plan` pass, or refuse it before anything runs.

    Args:
        plan: predicted metrics of the stages that will run, priced.
        budget: the limits.
        spent: metrics of the stages that are finished, priced. A resource nobody could read or predict is not counted.

    Raises:
        OverBudget: what was spent and what is predicted exceed a limit together (memory: one stage alone exceeds it).
    """
    for resource, limit in limits(budget).items():
        before = _amounts(spent or {}, resource)
        ahead = _amounts(plan, resource)
        stages = {**before, **ahead}
        total = max(stages.values(), default=0.0) if resource == "memory_bytes" else sum(stages.values())
        if ahead and total > limit:
            raise OverBudget(_refusal(resource, limit, total, before, ahead), _way_out(resource, total, ahead))


def _amounts(metrics: Mapping[str, Metrics], resource: str) -> dict[str, float]:
    """Stage -> amount of a resource, where it is known."""
    name = METRIC_OF[resource]
    values = {stage: entries[name].value for stage, entries in metrics.items() if name in entries}
    return {stage: float(value) for stage, value in values.items() if value is not None}


def _refusal(resource: str, limit: float, total: float, before: dict[str, float], ahead: dict[str, float]) -> str:
    dearest = max(ahead, key=lambda stage: ahead[stage])
    share = f"{dearest} {_amount(resource, ahead[dearest])}"
    if resource == "memory_bytes":
        return f"budget.{resource}: {_amount(resource, limit)}, but a peak of {share} is predicted"
    used = sum(amount for stage, amount in before.items() if stage not in ahead)
    already = f" ({_amount(resource, used)} of it spent already)" if used else ""
    return (
        f"budget.{resource}: {_amount(resource, limit)}, but this lifecycle is predicted to take "
        f"{_amount(resource, total)}{already}; the most by {share}"
    )


def _way_out(resource: str, total: float, ahead: dict[str, float]) -> str:
    dearest = max(ahead, key=lambda stage: ahead[stage])
    knobs = (LESS_MEMORY if resource == "memory_bytes" else SMALLER).get(dearest, dearest)
    return f"raise budget.{resource} to at least {_ceiling(total)}, or make {dearest} smaller ({knobs})"


def _amount(resource: str, value: float) -> str:
    """A value a person can read, e.g. `1.23e+12 FLOP`, `512 MiB`."""
    if resource == "memory_bytes":
        return f"{value / (1 << 20):,.0f} MiB"
    return f"{value:.3g} {UNITS[resource]}"


def _ceiling(value: float) -> str:
    """`value` rounded up to three digits, so that a limit of that much really suffices."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1.0
    return f"{(math.floor(value / unit) + 1) * unit:.4g}"


@dataclass
class Watch:
    """Looks after the budget while a stage runs: `Job.over_budget`.

    Attributes:
        budget: the limits.
        before: metrics of the finished upstream stages, priced.
        meter: the running stage's meter, earlier attempts included.
        prices: what energy and time cost.
        spent_path: where every check leaves what was spent (`Meter.save`), for the attempt after a kill.
    """

    budget: Budget
    before: Mapping[str, Metrics]
    meter: Meter
    prices: Prices
    spent_path: Path | None = None
    _limits: dict[str, float] = field(init=False)
    _used: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._limits = limits(self.budget)
        self._used = {name: sum(_amounts(self.before, name).values()) for name in METRIC_OF}
        self._used["memory_bytes"] = 0.0

    def __call__(self, flops: float) -> str:
        """The sentence that says which resource ran out, or "".

        Args:
            flops: what this stage has computed so far, all attempts together.
        """
        if self.spent_path is not None:
            self.meter.save(self.spent_path)
        if not self._limits:
            return ""
        now = priced(_as_metrics(self.meter.spent(), flops), self.prices)
        for resource, limit in self._limits.items():
            value = now[METRIC_OF[resource]].value if METRIC_OF[resource] in now else None
            used = self._used[resource] + float(value or 0.0)
            if used > limit:
                return (
                    f"budget.{resource} is used up: {_amount(resource, used)} of {_amount(resource, limit)}; "
                    f"raise budget.{resource} and run again: it goes on from here"
                )
        return ""


def _as_metrics(spent: Spent, flops: float) -> Metrics:
    """What has been spent as the ledger would write it."""
    joules = {"energy_joules/cpu": spent.cpu_joules, "energy_joules/gpu": spent.gpu_joules}
    entries: dict[str, float | None] = {
        "wall_seconds": spent.wall,
        "cpu_seconds": spent.cpu,
        "flops": flops,
        "peak_memory_bytes": spent.peak_memory,
        **joules,
    }
    return {name: _value(amount) for name, amount in entries.items()}


def _value(amount: float | None) -> Value:
    return missing("no meter") if amount is None else measured(amount)


def check_memory(stage: str, predicted_peak: float, available: float) -> None:
    """Refuse a stage that won't fit into the machine.

    Args:
        stage: its name.
        predicted_peak: bytes its process is predicted to need.
        available: bytes a new process can take (`machine.available_memory()`).

    Raises:
        UserError: the predicted peak is larger; names what would make it fit.
    """
    if predicted_peak > available:
        raise UserError(
            f"{stage}: needs about {_amount('memory_bytes', predicted_peak)} of memory, "
            f"and this machine has {_amount('memory_bytes', available)} free",
            f"lower {LESS_MEMORY.get(stage, stage)}",
        )
