"""How long optimizer steps and validations take."""

from __future__ import annotations

from tasks import accounting
from tasks.ledger.predict import constants
from tasks.ledger.predict.cost import Cost, traffic, work
from tasks.ledger.predict.steps import Steps
from tasks.ledger.predict.subject import Subject


def training_cost(about: Subject, steps: Steps) -> Cost:
    """All optimizer steps."""
    machine, rate = about.machine, constants.TRAINING[steps.dtype]
    sequences = steps.tokens / steps.context
    step = work(machine, rate, steps.dtype, about.anatomy, sequences, steps.context, steps.labelled)
    # frozen weights have no gradient; adapters have products of their own
    unlabelled = 3 * about.anatomy.head_matrix.flops * (1 - steps.labelled)
    spared = accounting.training_flops_per_token(about.config, steps.context) - unlabelled - steps.flops
    step += Cost(device=-spared * steps.tokens / (machine.gemm_flops_per_second[steps.dtype] * rate.gemm))
    moved = constants.BACKWARD * constants.ADAPTER_BYTES * steps.tokens * steps.elements
    step += traffic(machine, moved + constants.OPTIMIZER_BYTES * steps.trained)
    return (step + Cost(serial=constants.STEP_SECONDS)) * steps.count


def validation_cost(about: Subject, steps: Steps, tokens: float) -> Cost:
    """Forward passes over held-out batches of the training's shape."""
    rate = constants.AUTOCAST if steps.dtype == "bfloat16" else constants.FORWARD["float32"]
    sequences = steps.tokens / steps.context
    batch = work(about.machine, rate, steps.dtype, about.anatomy, sequences, steps.context, steps.labelled)
    return batch * (tokens / steps.tokens)
