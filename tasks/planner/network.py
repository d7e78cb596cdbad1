"""What several workers would send one another while they train: data parallel, or every state sharded."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.core.errors import UserError
from tasks.core.measure import Metrics, Value, missing, modelled
from tasks.params import Params

NUMBER_BYTES = 4
"""Of a parameter and of its gradient: training keeps both in float32."""

ALGORITHMS = {"DDP": 2, "FSDP": 3}
"""How often (p - 1) / p of the bytes are sent: a ring all-reduce is a reduce-scatter and an all-gather of the gradients;
sharded training gathers the parameters twice and scatters the gradients once (arXiv:1910.02054, section 7)."""


@dataclass(frozen=True)
class Traffic:
    """Of one worker, in one way of training a stage in parallel.

    Attributes:
        stage: `pretrain` or `finetune`.
        algorithm: `DDP` or `FSDP`.
        step_bytes: sent by a worker in a step.
        total_bytes: the same over the whole run.
        seconds: on the link, if nothing overlaps with computing.
    """

    stage: str
    algorithm: str
    step_bytes: Value
    total_bytes: Value
    seconds: Value


def traffic(planned: dict[str, Metrics], params: Params, workers: int, link: float) -> list[Traffic]:
    """Every training stage's traffic, by every algorithm.

    Args:
        planned: every stage's prediction.
        params: the configuration.
        workers: that share every step's batch.
        link: bytes per second a worker sends; 0: unknown.

    Raises:
        UserError: fewer than two workers.
    """
    if workers < 2:
        raise UserError(f"--workers: found {workers}", "one worker sends nothing: give 2 or more, or leave it out")
    runs = {"pretrain": params.pretrain.steps, "finetune": params.finetune.steps}
    found = []
    for stage, steps in runs.items():
        whole = planned[stage].get("parameters")
        trained = planned[stage].get("trainable_parameters", whole)
        if not steps or whole is None or trained is None or whole.value is None or trained.value is None:
            continue
        for name, times in ALGORITHMS.items():
            numbers = trained.value if name == "DDP" else 2 / 3 * whole.value + trained.value / 3
            found.append(_traffic(stage, name, steps, times * (workers - 1) / workers * NUMBER_BYTES * numbers, link))
    return found


def _traffic(stage: str, algorithm: str, steps: int, size: float, link: float) -> Traffic:
    note = f"{ALGORITHMS[algorithm]} (p - 1) / p x {NUMBER_BYTES} bytes of {algorithm}, per worker"
    return Traffic(
        stage=stage,
        algorithm=algorithm,
        step_bytes=modelled(size, note),
        total_bytes=modelled(size * steps, f"{steps} steps x {note}"),
        seconds=modelled(size * steps / link, f"bytes over a link of {link:g} B/s, nothing overlapped")
        if link
        else missing("the link between workers isn't known here: name a machine with --on"),
    )
