"""Choices of finetune that exclude each other, told from its parameters alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.finetune import Finetune


def conflicts(params: Finetune) -> Iterator[str]:
    """One sentence per combination that can't work: what was found where, and what to do."""
    name, technique = params.method, params.technique
    method, optimizer, shape = params.optimizer.method, params.optimizer.technique, params.schedule.shape
    if optimizer.schedule_free and shape != "constant":
        yield (
            f"finetune.schedule.shape: found {shape}; {method} averages instead of lowering its learning rate: set it to "
            "constant"
        )
    if optimizer.schedule_free and technique.rotates:
        yield (
            f"finetune.optimizer.method: found {method}; it averages the weights of a whole run, and {name} makes it forget "
            "those that rest: set it to adamw"
        )
    if technique.reads_gradients and not optimizer.keeps_gradients:
        yield (
            f"finetune.optimizer.method: found {method}; {name} looks at the gradients of a step, and {method} leaves none: "
            "set it to adamw"
        )
