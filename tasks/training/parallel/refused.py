"""What several workers can't do, in words. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.optimizers.technique import OptimizerTechnique
from tasks.training.parallel import Parallel

WHERE = "pretrain.parallel"


def refusals(parallel: Parallel, batch_size: int, optimizer: OptimizerTechnique) -> Iterator[str]:
    """One sentence per combination that can't work, each with what to do.

    Args:
        parallel: what params.yaml says.
        batch_size: sequences per step, all workers together.
        optimizer: the chosen technique.
    """
    workers, strategy, name = parallel.workers, parallel.strategy, type(optimizer).__name__
    yield from _machines(parallel)
    if workers == 1:
        yield from _alone(parallel)
        return
    if batch_size % workers:
        yield (
            f"pretrain.batch_size: found {batch_size}; {workers} workers take equal shares: use a multiple of {workers}, "
            "or another number of workers"
        )
    if strategy != "ddp" and not optimizer.elementwise:
        yield f"{WHERE}.strategy: found {strategy}; {name} needs whole tensors: set it to ddp, or the optimizer to adamw"
    if strategy == "zero1" and optimizer.schedule_free:
        yield (
            f"{WHERE}.strategy: found zero1; {name} swaps weights with their averages, and here every worker has but some of "
            "them: set it to ddp, zero2 or zero3, or the optimizer to adamw"
        )
    if strategy != "ddp" and parallel.comm_hook != "none":
        yield f"{WHERE}.comm_hook: found {parallel.comm_hook}; only ddp compresses gradients: set it to none, or strategy to ddp"
    if parallel.sync_every > 1 and (strategy != "ddp" or parallel.comm_hook != "none"):
        yield (
            f"{WHERE}.sync_every: found {parallel.sync_every}; workers that train apart exchange no gradients: set strategy "
            "to ddp and comm_hook to none, or sync_every to 1"
        )
    yield from _exchanged(parallel, optimizer)


def _exchanged(parallel: Parallel, optimizer: OptimizerTechnique) -> Iterator[str]:
    """Optimizers that have no gradient to exchange."""
    name = type(optimizer).__name__
    if optimizer.zeroth_order:
        yield (
            f"pretrain.optimizer.method: {name} exchanges no gradients, and these workers nothing else "
            f"({WHERE}.nproc_per_node: found {parallel.nproc_per_node}, nnodes: found {parallel.nnodes}): use one worker, or adamw"
        )
    if optimizer.in_backward:
        yield (
            f"pretrain.optimizer.method: {name} updates before gradients are exchanged ({WHERE}.nproc_per_node: found "
            f"{parallel.nproc_per_node}, nnodes: found {parallel.nnodes}): use one worker, or adamw"
        )


def _machines(parallel: Parallel) -> Iterator[str]:
    """What machines can't meet with."""
    count, endpoint = parallel.nnodes, parallel.rdzv_endpoint
    if parallel.node_rank >= count:
        yield f"{WHERE}.node_rank: found {parallel.node_rank}; with nnodes {count} it is at most {count - 1}"
    host, _, port = endpoint.rpartition(":")
    if count > 1 and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
        yield (
            f"{WHERE}.rdzv_endpoint: found {endpoint}; {count} machines need a place to meet: set it to the name and a free "
            "port of the first machine on all of them, e.g. first.local:29400, or nnodes to 1"
        )


def lacking(parallel: Parallel, cards: int) -> Iterator[str]:
    """A sentence where this machine's workers would have to share graphics cards, which NCCL refuses.

    Args:
        parallel: what params.yaml says.
        cards: graphics cards that torch sees; 0: workers share the processor, however many they are.
    """
    if 0 < cards < parallel.nproc_per_node:
        yield (
            f"{WHERE}.nproc_per_node: found {parallel.nproc_per_node}; graphics cards of this machine: {cards}, and every "
            f"worker takes one: lower it to {cards}"
        )


def _alone(parallel: Parallel) -> Iterator[str]:
    """One worker would ignore these."""
    for name, default in (("strategy", "ddp"), ("comm_hook", "none"), ("sync_every", 1)):
        if (found := getattr(parallel, name)) != default:
            yield f"{WHERE}.{name}: found {found}; it needs several workers: set it to {default}, or raise nproc_per_node"
