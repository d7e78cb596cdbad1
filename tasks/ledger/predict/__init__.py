"""Predictions: what every stage will cost on this machine, from `params.yaml` alone, before anything runs. No torch.

Counts (parameters, bytes, FLOPs) are exact arithmetic; times divide them by the machine's measured rates, with the
constants of `constants.py` between the two; earlier runs on the machine then correct them (`calibrate.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from tasks.core.errors import UserError
from tasks.core.measure import Metrics, Value, missing
from tasks.ledger import Prices
from tasks.ledger import machine as machines
from tasks.ledger.machine import Machine
from tasks.ledger.predict.calibrate import CORRECTED, Kind, bounded, calibrated, scaled_energy
from tasks.ledger.predict.compress import compress
from tasks.ledger.predict.data import data, design
from tasks.ledger.predict.deploy import deploy_profile
from tasks.ledger.predict.subject import Subject, subject
from tasks.ledger.predict.text import Text
from tasks.ledger.predict.training import finetune, pretrain
from tasks.ledger.report import priced
from tasks.ledger.scores import Scores, read
from tasks.params import Params

STAGES = {
    "data": data,
    "design": design,
    "pretrain": pretrain,
    "finetune": finetune,
    "compress": compress,
    "deploy_profile": deploy_profile,
}
"""Stage -> its prediction, in the order of the lifecycle."""

HEADLINE = ("wall_seconds", "cpu_seconds", "peak_memory_bytes", "flops", "energy_joules", "dollars")


def plan(
    params: Params,
    machine: Machine | None = None,
    source: Text | None = None,
    scores: Scores | None = None,
    stages: Collection[str] = tuple(STAGES),
) -> dict[str, Metrics]:
    """Predicted metrics of every stage, corrected by what earlier runs on the machine measured, and priced.

    What can't be known yet (a model or a text that isn't there) leaves the figures null, with the reason.

    Args:
        params: everything a person may turn.
        machine: measured rates; None: measure this machine, or take what was measured before.
        source: the text of `data.source`; None: look at it (whoever plans the same text many times has done so).
        scores: earlier runs; None: those kept for this machine; `NONE`: the formulas alone.
        stages: only these.
    """
    return {stage: made.predicted for stage, made in forecasts(params, machine, source, scores, stages).items()}


@dataclass(frozen=True)
class Forecast:
    """A stage's prediction.

    Attributes:
        kind: what it is about.
        raw: as the formulas make it.
        predicted: corrected and priced.
    """

    kind: Kind
    raw: Metrics
    predicted: Metrics


def forecasts(
    params: Params,
    machine: Machine | None = None,
    source: Text | None = None,
    scores: Scores | None = None,
    stages: Collection[str] = tuple(STAGES),
) -> dict[str, Forecast]:
    """What `plan` says, and what it was before correction; arguments as there."""
    machine = machine if machine is not None else machines.measure()
    scores = scores if scores is not None else read(machine.name)
    try:
        about = subject(params, machine, source)
    except UserError as error:
        unknown = dict.fromkeys(HEADLINE, missing(error.message))
        return {stage: Forecast(Kind(stage, ""), unknown, unknown) for stage in stages}
    prices = params.prices
    if machine.dollars_per_hour is not None:
        prices = prices.model_copy(update={"dollars_per_hour": machine.dollars_per_hour})
    chosen = {stage: predict for stage, predict in STAGES.items() if stage in stages}
    return {stage: _forecast(about, stage, predict, scores, prices) for stage, predict in chosen.items()}


def _forecast(
    about: Subject, stage: str, predict: Callable[[Subject], Metrics], scores: Scores, prices: Prices
) -> Forecast:
    raw = predict(about)
    kind = Kind(stage, about.model_type, about.technique(stage))
    corrected = scaled_energy(raw, calibrated(kind, raw, scores))
    if about.machine.assumed:
        corrected = {name: _assuming(value, name, about.machine.assumed) for name, value in corrected.items()}
    return Forecast(kind, raw, bounded(corrected, lambda metrics: priced(metrics, prices)))


def _assuming(value: Value, name: str, assumption: str) -> Value:
    return replace(value, note=f"{value.note}; {assumption}") if name.partition("/")[0] in CORRECTED else value
