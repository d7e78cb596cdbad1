"""Blocks whose inside is computed again in the backward pass instead of kept (gradient checkpointing)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tasks.core.errors import UserError
from tasks.training.loss import causal_of

KEPT = ("mm", "addmm", "bmm", "baddbmm", "_grouped_mm", "convolution")
"""Operators of aten whose results `selective` keeps beside those of fused attention: they cost most of the time."""


def recompute(model: Any, way: str) -> None:
    """Make every decoder block of `model` keep less for its backward pass.

    `full` keeps a block's input alone (arXiv:1604.06174), `selective` also the results of matrix products and of
    attention (arXiv:2205.05198). The gradient is the same; dropout draws again what it drew.

    Args:
        model: a transformers causal language model, or one that peft has wrapped.
        way: `none | selective | full`.

    Raises:
        UserError: the model has no list of decoder blocks.
    """
    if way == "none":
        return
    for block in blocks_of(model):
        block.forward = partial(_again, block, block.forward, way)


def keep_everything(model: Any) -> None:
    """Undo `recompute`."""
    for block in blocks_of(model):
        if isinstance(block.forward, partial):
            del block.forward


@contextmanager
def everything_kept(model: Any) -> Iterator[None]:
    """Nothing is computed twice inside: what runs is what the model itself takes (model FLOPs, arXiv:2204.02311)."""
    wrapped = [(block, block.forward) for block in blocks_of(model) if isinstance(block.forward, partial)]
    for block, forward in wrapped:
        block.forward = forward.args[1]
    try:
        yield
    finally:
        for block, forward in wrapped:
            block.forward = forward


def blocks_of(model: Any) -> list[Any]:
    """The decoder's blocks in order.

    Raises:
        UserError: there is no list of as many modules as the config has layers.
    """
    import torch

    causal = causal_of(model)
    for child in causal.get_decoder().children():
        if isinstance(child, torch.nn.ModuleList) and len(child) == causal.config.num_hidden_layers:
            return list(child)
    raise UserError(
        f"{type(causal).__name__} has no list of blocks to compute again or to compile",
        "set pretrain.gradient_checkpointing to none and pretrain.compile to off",
    )


def _again(block: Any, forward: Any, way: str, *args: Any, **kwargs: Any) -> Any:
    import torch
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    contexts: Any = partial(create_selective_checkpoint_contexts, _kept()) if way == "selective" else noop_context_fn
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _kept() -> list[Any]:
    """Overloads of what `selective` keeps."""
    import torch

    aten = torch.ops.aten
    names = [*KEPT, "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention"]
    names += ["_scaled_dot_product_flash_attention", "_scaled_dot_product_cudnn_attention"]
    return sorted({getattr(aten, name).default for name in names}, key=str)
