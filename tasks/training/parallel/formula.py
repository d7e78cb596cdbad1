"""What workers send each other, by the formulas. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from tasks.training.parallel import Parallel

NUMBER_BYTES = 4
"""Of a parameter and of its gradient in float32."""

HALF_BYTES = 2

Shape = tuple[int, ...]


def step_bytes(parallel: Parallel, shapes: Iterable[Shape], parts: int = 1) -> float:
    """Bytes a worker sends per step: gradients and weights, on the average of all workers (and of `sync_every` steps).

    With p workers and N bytes of parameters: ddp 2 N (an all-reduce), zero1 3 N (torch's sends updated tensors after an
    all-reduce, where a reduce-scatter would do), zero2 2 N, zero3 3 N (one more gathering per further part of a step),
    each times (p - 1) / p; arXiv:1910.02054, section 7. DiLoCo: 2 N / sync_every.

    Args:
        parallel: what params.yaml says.
        shapes: of all trained tensors.
        parts: `gradient_accumulation_steps`.
    """
    shapes, workers = list(shapes), parallel.workers
    size = NUMBER_BYTES * sum(prod(shape) for shape in shapes)
    padded = NUMBER_BYTES * sum(_padded(shape, workers) for shape in shapes)
    whole = {
        "ddp": 2 * _hooked(parallel, shapes) / parallel.sync_every,
        "zero1": 3 * size,
        "zero2": 2 * padded,
    }.get(parallel.strategy, (2 * parts + 1) * padded)
    return whole * (workers - 1) / workers


def total_bytes(parallel: Parallel, shapes: Iterable[Shape], steps: int, parts: int = 1) -> float:
    """The same of all workers and steps: PowerSGD's first steps are uncompressed, DiLoCo's workers meet at the end."""
    shapes, workers = list(shapes), parallel.workers
    plain = step_bytes(Parallel(nproc_per_node=workers), shapes)
    if parallel.sync_every > 1:
        return workers * plain * -(-steps // parallel.sync_every)
    full = min(steps, POWERSGD_FULL_STEPS) if parallel.comm_hook == "powersgd" else 0
    return workers * (full * plain + (steps - full) * step_bytes(parallel, shapes, parts))


def validation_bytes(parallel: Parallel, shapes: Iterable[Shape], passes: int) -> float:
    """Bytes all workers send to gather weights for `passes` forward passes between steps; each makes 1 / p of them."""
    if parallel.strategy not in ("zero2", "zero3", "fsdp"):
        return 0.0
    size = NUMBER_BYTES * sum(_padded(shape, parallel.workers) for shape in shapes)
    return -(-passes // parallel.workers) * size * (parallel.workers - 1)


POWERSGD_FULL_STEPS = 2
"""Steps that PowerSGD sends uncompressed: the fewest torch allows with error feedback."""

MIN_COMPRESSION = 2
"""torch's PowerSGD leaves a matrix alone that would not shrink by this factor."""


def _hooked(parallel: Parallel, shapes: list[Shape]) -> float:
    """Bytes of all gradients as the communication hook sends them."""
    numbers = sum(prod(shape) for shape in shapes)
    if parallel.comm_hook == "none":
        return NUMBER_BYTES * numbers
    if parallel.comm_hook in ("fp16", "bf16"):
        return HALF_BYTES * numbers
    return NUMBER_BYTES * sum(_low_rank(shape, parallel.powersgd_rank) for shape in shapes)


def _low_rank(shape: Shape, rank: int) -> int:
    """Numbers PowerSGD sends of a tensor, seen as a matrix of its first size by the rest (arXiv:1905.13727)."""
    rows, columns = shape[0], prod(shape[1:])
    factors = (rows + columns) * min(rank, rows, columns)
    return factors if factors * MIN_COMPRESSION < rows * columns else rows * columns


def _padded(shape: Shape, workers: int) -> int:
    """Numbers of a tensor whose rows are shared out evenly, the last shares filled up."""
    return -(-shape[0] // workers) * workers * prod(shape[1:])
