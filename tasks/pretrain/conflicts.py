"""Choices of pretrain that exclude each other, told from its parameters alone. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.pretrain import Pretrain
from tasks.training.parallel.refused import refusals


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
    if params.gradient_checkpointing != "none" and optimizer.zeroth_order:
        yield (
            f"pretrain.gradient_checkpointing: found {params.gradient_checkpointing}; {method} computes nothing backward, so "
            "nothing is kept for that: set it to none"
        )
    yield from _parts(params)
    yield from _precision(params)
    yield from _depths(params)
    yield from refusals(params.parallel, params.batch_size, optimizer)


def _parts(params: Pretrain) -> Iterator[str]:
    parts, method = params.gradient_accumulation_steps, params.optimizer.method
    if parts > params.batch_size:
        yield (
            f"pretrain.gradient_accumulation_steps: found {parts}; a step has {params.batch_size} sequences "
            "(pretrain.batch_size): lower it, or raise the batch"
        )
    if params.optimizer.technique.in_backward and parts > 1:
        yield (
            f"pretrain.gradient_accumulation_steps: found {parts}; {method} updates a tensor as soon as its gradient is "
            "there, so none is added up: set it to 1, or choose another pretrain.optimizer.method"
        )


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


def _depths(params: Pretrain) -> Iterator[str]:
    depths = params.objective.multi_token.mtp_num_layers
    shortest = min(params.context_length, params.sampling.warmup_length or params.context_length)
    if params.objective.method == "multi_token" and depths >= shortest:
        yield (
            f"pretrain.objective.multi_token.mtp_num_layers: found {depths}; sequences of {shortest} tokens have no label "
            "that far ahead: lower it, or raise pretrain.context_length and pretrain.sampling.warmup_length"
        )
