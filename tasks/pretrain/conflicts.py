"""Choices of pretrain that exclude each other, told from its parameters alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.pretrain import Pretrain
from tasks.training.parallel.refused import refusals as parallel
from tasks.training.refused import refusals


def conflicts(params: Pretrain) -> Iterator[str]:
    """One sentence per combination that can't work: what was found where, and what to do."""
    yield from refusals("pretrain", params, "sequences")
    if params.compile == "on" and params.gradient_checkpointing == "selective":
        yield (
            "pretrain.compile: found on; selective checkpointing chooses among operators that a compiled block no longer has: "
            "set it to auto or off, or pretrain.gradient_checkpointing to full or none"
        )
    yield from _precision(params)
    yield from _depths(params)
    yield from parallel(params.parallel, params.batch_size, params.optimizer.technique)


def _precision(params: Pretrain) -> Iterator[str]:
    method, optimizer = params.optimizer.method, params.optimizer.technique
    if params.precision == "fp16" and optimizer.in_backward:
        yield (
            f"pretrain.precision: found fp16; its gradients are scaled until the whole backward pass is done, and {method} "
            "doesn't wait for that: set it to bf16 or fp32"
        )
    if params.precision == "fp16" and optimizer.zeroth_order:
        yield (
            f"pretrain.precision: found fp16; {method} takes the difference of two losses, which float16 rounds away: set it "
            "to fp32 or bf16"
        )
    if params.precision == "bf16_pure" and not optimizer.tensor_by_tensor:
        yield (
            f"pretrain.precision: found bf16_pure; pretrain.optimizer.method {method} can't be rounded tensor by tensor: set "
            "precision to bf16 or fp32, or the optimizer to adamw"
        )
    if params.precision == "bf16_pure" and params.parallel.workers > 1 and params.parallel.strategy != "ddp":
        yield (
            f"pretrain.precision: found bf16_pure; pretrain.parallel.strategy {params.parallel.strategy} shares out what is "
            "rounded tensor by tensor: set precision to bf16, or strategy to ddp"
        )


def _depths(params: Pretrain) -> Iterator[str]:
    depths = params.objective.multi_token.mtp_num_layers
    shortest = min(params.context_length, params.sampling.warmup_length or params.context_length)
    if params.objective.method == "multi_token" and depths >= shortest:
        yield (
            f"pretrain.objective.multi_token.mtp_num_layers: found {depths}; sequences of {shortest} tokens have no label "
            "that far ahead: lower it, or raise pretrain.context_length and pretrain.sampling.warmup_length"
        )
