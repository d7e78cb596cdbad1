"""Predictions corrected by what earlier runs on the same machine measured, and the bounds that follow from them.

With the logarithms r of measured / predicted of earlier runs of the stage, and weights w (newer, more similar runs
weigh more):

    stage  = sum(w r) / (sum(w) + 1)                                 all families; no runs: 0, a ratio of 1
    family = (sum(w r) + stage) / (sum(w) + 1)                       this family's runs
    prediction = formula x exp(family)

so that few runs count little. The bounds come from every run predicted by the others (leave one out).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from tasks.core.measure import Metrics, Value
from tasks.ledger.scores import Score, Scores, formulas, numbers

CORRECTED = (
    "wall_seconds",
    "cpu_seconds",
    "training_seconds",
    "evaluation_seconds",
    "tokens_per_second",
    "decode_tokens_per_second",
    "cpu_seconds_per_token",
    "peak_memory_bytes",
)
"""Metrics that depend on the machine; a qualifier after a slash counts as its own metric. Counts are never corrected."""

COUNTED = ("flops", "tokens", "model_bytes", "delivery_bytes", "adapter_bytes", "checkpoint_bytes", "train_tokens")
"""Exact but for what the text brings (lengths of chats, headers of files): bounds, no correction."""

UNKNOWN = {"peak_memory_bytes": math.log(1.3), "counted": math.log(1.05), "time": math.log(2.0)}
"""Half width of the bounds, in logarithms, where nothing has been measured."""

NINE_OF_TEN = 1.645
"""Standard deviations that hold nine of ten outcomes of a normal distribution."""

HALF_LIFE_DAYS = 60.0
"""After that time a run counts half as much as the newest one."""

ALIKE = math.log(8.0)
"""Distance in size (root mean square of the features' logarithms) over which likeness fades."""

FEATURES = ("flops", "parameters", "tokens", "cpu_seconds", "peak_memory_bytes")
"""Raw predictions that say how alike two runs are."""

OTHER_FORMULAS, OTHER_TECHNIQUE = 0.25, 0.5
"""Weights of runs predicted by other code, and done by another technique."""

COMPANY = {"peak_memory_bytes": 0.0, "cpu_seconds": 1.0, "cpu_seconds_per_token": 1.0}
"""Power of the free share of the machine by which a run counts: clocks suffer from company, processor time less so."""

COMPANY_CLOCK = 4.0
"""The same of every other metric."""

PRIOR_RUNS = 2.0
"""Weight of the unknown spread beside that of the runs."""


@dataclass(frozen=True)
class Kind:
    """What a prediction is about: stage, model type, technique."""

    stage: str
    family: str
    technique: str = ""


def calibrated(kind: Kind, raw: Metrics, scores: Scores) -> Metrics:
    """`raw` corrected by `scores`, with bounds; what neither depends on the machine nor on the text stays as it is."""
    target = Score(kind.stage, kind.family, kind.technique, numbers(raw, raw), {}, "", formulas())
    result = dict(raw)
    for name, value in raw.items():
        metric = name.partition("/")[0]
        if value.value is None or metric not in CORRECTED + COUNTED:
            continue
        runs = _runs(scores, kind.stage, name)
        shift = _shift(target, name, runs) if metric in CORRECTED else 0.0
        spread = _spread(scores, kind.stage, kind.family, name) if runs else _unknown(name)
        result[name] = _moved(value, shift, spread, len(runs), scores.damaged)
    return result


def scaled_energy(raw: Metrics, corrected: Metrics) -> Metrics:
    """A device's modelled energy, which goes with the time it is busy."""
    energy, before, after = (m.get(n) for m, n in ((raw, GPU), (raw, "wall_seconds"), (corrected, "wall_seconds")))
    if energy is None or energy.value is None or before is None or after is None or not before.value or not after.value:
        return corrected
    factor = float(after.value) / float(before.value)
    return corrected | {GPU: replace(energy, value=energy.value * factor)}


GPU = "energy_joules/gpu"


def bounded(metrics: Metrics, price: Callable[[Metrics], Metrics]) -> Metrics:
    """`price(metrics)`, energy and money with the bounds that follow from those of time."""
    low, high = (price({name: _at(value, end) for name, value in metrics.items()}) for end in ("low", "high"))
    result = price(metrics)
    for name, value in result.items():
        ends = [float(end.value) for end in (low[name], high[name]) if end.value is not None]
        if value.low is None and len(ends) == 2 and ends[0] != ends[1]:
            result[name] = replace(value, low=min(ends), high=max(ends))
    return result


def _at(value: Value, end: str) -> Value:
    bound = getattr(value, end)
    return value if bound is None else replace(value, value=bound)


def _runs(scores: Scores, stage: str, metric: str) -> tuple[Score, ...]:
    return tuple(run for run in scores.runs if run.stage == stage and run.ratio(metric) is not None)[-60:]


def _moved(value: Value, shift: float, spread: float, count: int, damaged: int) -> Value:
    assert value.value is not None
    centre = value.value * math.exp(shift) if shift else value.value
    if isinstance(value.value, int) and shift:
        centre = round(centre)
    words = (
        f"; corrected by x{math.exp(shift):.3g} from {count} run{'s' * (count != 1)} on this machine" if shift else ""
    )
    if damaged:
        words += f" ({damaged} damaged line{'s' * (damaged != 1)} of scores left out)"
    return replace(
        value, value=centre, note=value.note + words, low=centre * math.exp(-spread), high=centre * math.exp(spread)
    )


def _shift(target: Score, metric: str, runs: Iterable[Score]) -> float:
    """Logarithm of the factor that `runs` speak for."""
    runs = tuple(runs)
    if not runs:
        return 0.0
    newest = max(datetime.fromisoformat(run.date) for run in runs)
    power = COMPANY.get(metric.partition("/")[0], COMPANY_CLOCK)
    weighed = [(_weight(target, run, newest, power), _log_ratio(run, metric), run.family) for run in runs]
    stage = sum(w * r for w, r, _ in weighed) / (sum(w for w, _, _ in weighed) + 1)
    own = [(w, r) for w, r, family in weighed if family == target.family]
    return (sum(w * r for w, r in own) + stage) / (sum(w for w, _ in own) + 1)


def _log_ratio(run: Score, metric: str) -> float:
    return math.log(run.ratio(metric) or 1.0)


def _weight(target: Score, run: Score, newest: datetime, company: float) -> float:
    age = (newest - datetime.fromisoformat(run.date)).total_seconds() / 86400
    weight: float = 0.5 ** (age / HALF_LIFE_DAYS) * math.exp(-0.5 * (_distance(target.raw, run.raw) / ALIKE) ** 2)
    weight *= 1.0 if run.technique == target.technique else OTHER_TECHNIQUE
    weight *= 1.0 if run.formulas == target.formulas else OTHER_FORMULAS
    return float(weight * (1 - min(0.9, run.others or 0.0)) ** company)


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Root mean square of the differences of the features' logarithms."""
    pairs = [(one.get(name, 0.0), other.get(name, 0.0)) for name in FEATURES]
    logs = [math.log(a / b) ** 2 for a, b in pairs if a > 0 and b > 0]
    return math.sqrt(sum(logs) / len(logs)) if logs else 0.0


@lru_cache(maxsize=4096)
def _spread(scores: Scores, stage: str, family: str, metric: str) -> float:
    """Half width of the bounds: leave-one-out errors of the stage's runs, this family's counting double."""
    runs = _runs(scores, stage, metric)
    corrected = metric.partition("/")[0] in CORRECTED
    sigma = _unknown(metric) / NINE_OF_TEN
    total, squares = PRIOR_RUNS, PRIOR_RUNS * sigma**2
    for index, run in enumerate(runs):
        others = runs[:index] + runs[index + 1 :]
        error = _log_ratio(run, metric) - (_shift(run, metric, others) if corrected else 0.0)
        weight = 1.0 if run.family == family else 0.5
        total, squares = total + weight, squares + weight * error**2
    return NINE_OF_TEN * math.sqrt(squares / total)


def _unknown(metric: str) -> float:
    name = metric.partition("/")[0]
    return UNKNOWN.get(name, UNKNOWN["counted" if name in COUNTED else "time"])
