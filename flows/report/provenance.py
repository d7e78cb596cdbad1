"""Where every figure comes from: machine, versions, parameters, bytes, commit; and the budget used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.report.load import Lifecycle
from flows.report.tables import total
from flows.report.words import exact, human, label, title
from tasks.ledger import Prices
from tasks.params import flatten

USES = {
    "seconds": "wall_seconds", "joules": "energy_joules", "dollars": "dollars", "flops": "flops",
    "memory_bytes": "peak_memory_bytes",
}  # fmt: skip
"""Field of `budget` -> the metric that uses it up."""
_UNITS = {"seconds": "s", "joules": "J", "dollars": "$", "flops": "FLOP", "memory_bytes": "B"}


@dataclass(frozen=True)
class Use:
    """One resource of the budget: used, limit (None: no limit) and share of the limit, None without one."""

    resource: str
    used: str
    used_title: str
    limit: str
    share: float | None


@dataclass(frozen=True)
class Finished:
    """When a stage finished, in how many processes, and the key of its parameters and inputs."""

    stage: str
    when: str
    attempts: str
    key: str


@dataclass(frozen=True)
class Output:
    """The identity of what a stage wrote, by dvc.lock."""

    stage: str
    path: str
    md5: str
    size: str


def budget(life: Lifecycle) -> list[Use]:
    """What was used of each resource that can be limited."""
    result = []
    for resource, name in USES.items():
        used, limit, unit = total(life, name), getattr(life.params.budget, resource), _UNITS[resource]
        amount = used.value if used is not None else None
        share = amount / limit if amount is not None and limit else None
        shown = human(limit, unit) if limit else "no limit"
        result.append(Use(label(name)[0], human(amount, unit), exact(amount, unit), shown, share))
    return result


def finished(life: Lifecycle) -> list[Finished]:
    """One line per stage that has a report."""
    result = []
    for stage, report in life.reports.items():
        attempts = life.value(stage, "attempts")
        when = _minute(str(report.get("finished") or ""))
        result.append(
            Finished(stage, when, "n/a" if attempts is None else f"{attempts:g}", str(report.get("key") or ""))
        )
    return result


def last_finished(life: Lifecycle) -> str:
    """When the last stage finished; "" where no report says."""
    return _minute(max(str(report.get("finished") or "") for report in life.reports.values()))


def outputs(life: Lifecycle) -> list[Output]:
    """What every stage wrote, by dvc.lock."""
    return [
        Output(stage, str(out.get("path", "")), str(out.get("md5", "")), human(out.get("size"), "B"))
        for stage, entry in life.lock.items()
        for out in entry.get("outs") or []
    ]


def common(life: Lifecycle, kind: str) -> dict[str, str]:
    """`machine` or `versions` over all reports: one value where they agree, else each with its stages."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage, report in life.reports.items():
        for name, value in flatten(report[kind]):
            found.setdefault(name, {}).setdefault(said(name, value), []).append(title(stage).lower())
    return {
        name.replace("_", " ") if kind == "machine" else name: next(iter(values))
        if len(values) == 1
        else "; ".join(f"{value} ({', '.join(stages)})" for value, stages in values.items())
        for name, values in found.items()
    }


def settings(life: Lifecycle) -> dict[str, dict[str, str]]:
    """Block of params.yaml -> dotted rest -> value, as the stages ran."""
    blocks: dict[str, dict[str, str]] = {}
    for name, value in life.settings.items():
        block, _, rest = name.partition(".")
        blocks.setdefault(block if rest else "", {})[rest or name] = said("", value)
    return blocks


def prices(life: Lifecycle) -> list[tuple[str, str, str]]:
    """Every price: name, value, and the source it was taken from."""
    values = life.params.prices.model_dump()
    return [(n, f"{values[n]:g}", field.description or "") for n, field in Prices.model_fields.items()]


def said(name: str, value: Any) -> str:
    """A value as params.yaml writes it; what ends in bytes or rates with its unit."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        for ending, unit in (("_bytes", "B"), ("flops_per_second", "FLOP/s"), ("bytes_per_second", "B/s")):
            if name.endswith(ending) or ("." in name and name.rpartition(".")[0].endswith(ending)):
                return human(value, unit)
    return str(value)


def _minute(when: str) -> str:
    """ISO time cut to the minute, e.g. "2025-01-31 12:30 UTC"."""
    zone = " UTC" if when.endswith(("Z", "+00:00")) else ""
    return when[:16].replace("T", " ") + zone
