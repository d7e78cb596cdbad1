"""What the workers of a training run will send each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tasks.accounting.anatomy import Anatomy
from tasks.core.measure import Metrics, modelled
from tasks.ledger.predict.subject import Subject
from tasks.ledger.predict.together import sharers
from tasks.training.parallel.formula import Shape, step_bytes, total_bytes, validation_bytes

SHARE = ("training_seconds", "wall_seconds", "tokens_per_second")
"""Predictions made for one process with the whole batch."""


def tensors(anatomy: Anatomy) -> Iterator[Shape]:
    """Shapes of all trained tensors, the vectors of a block as one; experts that lie in one tensor are one tensor."""
    for _ in range(1 if anatomy.tied else 2):
        yield (anatomy.vocab, anatomy.width)
    for vectors in (anatomy.vectors, anatomy.vocab * anatomy.head_bias):
        if vectors:
            yield (vectors,)
    for block in anatomy.blocks:
        if block.vectors:
            yield (block.vectors,)
        for matrix in block.matrices:
            if not matrix.module:
                yield (matrix.copies, matrix.outputs, matrix.inputs)
            else:
                yield from [(matrix.outputs, matrix.inputs)] * matrix.copies
            if matrix.bias:
                yield (matrix.copies * matrix.outputs,)


def _each(about: Subject) -> str:
    """What the predicted memory is of."""
    parallel, here = about.params.pretrain.parallel, sharers(about)
    of = f"{here} workers of one machine together" if here > 1 else "one worker, alone in its memory"
    sharded = f"; {parallel.strategy} shares what it shards among {parallel.workers}" * (parallel.strategy != "ddp")
    return (
        f"{of}, each with libraries, weights, gradients, optimizer state and the activations of its share of the batch{sharded}; "
        "or the evaluation after them, if that takes more"
    )


def communication(about: Subject, predicted: Metrics, passes: int) -> Metrics:
    """`predicted` with what the workers of pretraining send, and a word where it speaks of one process.

    Args:
        about: the lifecycle.
        predicted: of the stage.
        passes: forward passes of all validations together.
    """
    params = about.params.pretrain
    parallel, workers = params.parallel, params.parallel.workers
    if workers == 1 or not params.steps:
        return predicted
    shapes = list(tensors(about.anatomy))
    parts = params.gradient_accumulation_steps
    total = total_bytes(parallel, shapes, params.steps, parts) + validation_bytes(parallel, shapes, passes)
    way = "DiLoCo" if parallel.sync_every > 1 else f"{parallel.strategy}, comm_hook {parallel.comm_hook}"
    note = f"{workers} workers, {way}, ring; losses and stops (some hundred bytes a step) and checkpoints not included"
    found = {
        name: replace(value, note=f"{value.note}; of one process: what {workers} workers share is not known")
        if name in SHARE
        else value
        for name, value in predicted.items()
    }
    memory = predicted["peak_memory_bytes"]
    found["peak_memory_bytes"] = replace(memory, note=_each(about))
    if parallel.strategy != "ddp" and (state := predicted["optimizer_bytes"]).value is not None:
        found["optimizer_bytes"] = modelled(state.value / workers, f"{state.note}, shared by {workers} workers")
    return found | {
        "communication_bytes": modelled(round(total), f"{params.steps} steps, {note}"),
        "communication_bytes_per_step": modelled(step_bytes(parallel, shapes, parts), f"per worker, {note}"),
    }
