"""Predictions: what every stage will cost on this machine, from `params.yaml` alone, before anything runs. No torch.

Counts (parameters, bytes, FLOPs) are exact arithmetic; times divide them by the machine's measured rates, with the
constants of `constants.py` between the two.
"""

from __future__ import annotations

from tasks.core.errors import UserError
from tasks.core.measure import Metrics, missing
from tasks.ledger import machine as machines
from tasks.ledger.machine import Machine
from tasks.ledger.predict.compress import compress
from tasks.ledger.predict.data import data, design
from tasks.ledger.predict.deploy import deploy_profile
from tasks.ledger.predict.subject import subject
from tasks.ledger.predict.training import finetune, pretrain
from tasks.ledger.report import priced
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


def plan(params: Params, machine: Machine | None = None) -> dict[str, Metrics]:
    """Predicted metrics of every stage, priced.

    What can't be known yet (a model or a text that isn't there) leaves the figures null, with the reason.

    Args:
        params: everything a person may turn.
        machine: measured rates; None: measure this machine, or take what was measured before.
    """
    machine = machine if machine is not None else machines.measure()
    try:
        about = subject(params, machine)
    except UserError as error:
        return {stage: dict.fromkeys(HEADLINE, missing(error.message)) for stage in STAGES}
    return {stage: priced(predict(about), params.prices) for stage, predict in STAGES.items()}
