"""What a stage's optimizer, schedule, parts and checkpointing exclude, the same wherever the loop trains. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def refusals(stage: str, params: Any, unit: str) -> Iterator[str]:
    """One sentence per combination that can't work: what was found where, and what to do.

    Args:
        stage: name of the block in params.yaml.
        params: the block, with the loop's parameters by their names.
        unit: what `batch_size` counts.
    """
    method, optimizer, shape = params.optimizer.method, params.optimizer.technique, params.schedule.shape
    parts, checkpointing = params.gradient_accumulation_steps, params.gradient_checkpointing
    if optimizer.schedule_free and shape != "constant":
        yield (
            f"{stage}.schedule.shape: found {shape}; {method} averages instead of lowering its learning rate: set it to "
            "constant"
        )
    if checkpointing != "none" and optimizer.zeroth_order:
        yield (
            f"{stage}.gradient_checkpointing: found {checkpointing}; {method} computes nothing backward, so "
            "nothing is kept for that: set it to none"
        )
    if parts > params.batch_size:
        yield (
            f"{stage}.gradient_accumulation_steps: found {parts}; a step has {params.batch_size} {unit} "
            f"({stage}.batch_size): lower it, or raise the batch"
        )
    if optimizer.in_backward and parts > 1:
        yield (
            f"{stage}.gradient_accumulation_steps: found {parts}; {method} updates a tensor as soon as its gradient is "
            f"there, so none is added up: set it to 1, or choose another {stage}.optimizer.method"
        )
