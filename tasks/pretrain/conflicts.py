"""Choices of pretrain that exclude each other, told from its parameters alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.pretrain import Pretrain


def conflicts(params: Pretrain) -> Iterator[str]:
    """One sentence per combination that can't work: what was found where, and what to do."""
    method, optimizer, shape = params.optimizer.method, params.optimizer.technique, params.schedule.shape
    if optimizer.schedule_free and shape != "constant":
        yield (
            f"pretrain.schedule.shape: found {shape}; {method} averages instead of lowering its learning rate: set it to "
            "constant"
        )
    if params.compile == "on" and params.gradient_checkpointing == "selective":
        yield (
            "pretrain.compile: found on; selective checkpointing chooses among operators that a compiled block no longer has: "
            "set it to auto or off, or pretrain.gradient_checkpointing to full or none"
        )
    if not optimizer.in_backward:
        return
    others = {
        "pretrain.gradient_accumulation_steps": (params.gradient_accumulation_steps, 1),
        "pretrain.parallel.nproc_per_node": (params.parallel.nproc_per_node, 1),
        "pretrain.parallel.nnodes": (params.parallel.nnodes, 1),
    }
    for name, (found, allowed) in others.items():
        if found != allowed:
            yield (
                f"{name}: found {found}; {method} updates a tensor as soon as its gradient is there, so none is added up "
                f"or exchanged: set it to {allowed}, or choose another pretrain.optimizer.method"
            )
    if params.precision == "fp16":
        yield (
            f"pretrain.precision: found fp16; its gradients are scaled until the whole backward pass is done, and {method} "
            "doesn't wait for that: set it to bf16 or fp32"
        )
