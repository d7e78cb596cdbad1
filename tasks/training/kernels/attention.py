"""Causal attention for training on a CPU: torch's kernel forward, blocks of matrix products backward.

torch's own backward kernel works through small tiles by itself; products handed to the matrix library in blocks of queries
do the same sums at its rate, and leave out the keys behind a block, which no query of it sees. Where a row holds several
documents, each goes through on its own: what the mask would hide is never computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import torch

from tasks.training.documents import shown

NAME = "leanlm_blocks"
BLOCK = 64
"""Queries at once. Of 64, 128, 256: the quickest at 256 tokens a sequence."""


Span = tuple[int, int, int]
"""Where a document lies: row of the batch, first token, token behind the last."""


class BlockwiseAttention(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """softmax(q k^T * scale) v of causal sequences; kept for the backward pass are q, k, v, the sum and its logarithm.

    q is (B, H, T, D), k and v are (B, H or fewer, T, D): each serves as many heads of q in a row, and is kept once.
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, scale: float, spans: list[Span] | None) -> Any:
        """The sums (B, H, T, D); `spans`: the documents of packed rows, which fill them; None: every row is one."""
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        own = query, key, value
        key, value = _for_all(*own)
        if spans is None:
            out, logsumexp = kernel(query, key, value, 0.0, True, scale=scale)
        else:
            rows, heads, length, size = query.shape
            out = query.new_empty(rows, length, heads, size).transpose(1, 2)
            logsumexp = query.new_empty(rows, heads, length, dtype=torch.float32)
            for row, start, end in spans:
                part = slice(row, row + 1), slice(None), slice(start, end)
                out[part], logsumexp[part] = kernel(query[part], key[part], value[part], 0.0, True, scale=scale)
        ctx.save_for_backward(*own, out, logsumexp)
        ctx.scale, ctx.spans = scale, spans
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """FlashAttention's backward pass (arXiv:2205.14135, algorithm 4), a block of queries at a time."""
        *own, out, logsumexp = ctx.saved_tensors
        query, heads = own[0], own[1].shape[1]
        key, value = _for_all(*own)
        delta = (gradient * out).sum(-1, keepdim=True, dtype=torch.float32)
        normal = logsumexp.unsqueeze(-1)
        # contiguous: what is filled below must be a view of them
        made = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (query, key, value)]
        whole = (query, key, value, gradient, normal, delta, *made)
        if ctx.spans is None:
            _slopes([tensor.reshape(-1, *tensor.shape[2:]) for tensor in whole], ctx.scale)
        for row, start, end in ctx.spans or ():
            _slopes([tensor[row, :, start:end] for tensor in whole], ctx.scale)
        return (made[0], *(_of_own(slopes, heads) for slopes in made[1:]), None, None)


def _for_all(query: Any, key: Any, value: Any) -> tuple[Any, Any]:
    """Keys and values (B, H, T, D), those of every head of the queries."""
    groups = query.shape[1] // key.shape[1]
    return (key, value) if groups == 1 else (key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1))


def _of_own(slopes: Any, heads: int) -> Any:
    """Gradients (B, heads, T, D) of keys or values, from those (B, H, T, D) of what was made of them for every head."""
    return slopes if slopes.shape[1] == heads else slopes.unflatten(1, (heads, -1)).sum(2)


def _slopes(tensors: list[Any], scale: float) -> None:
    """Fill the gradients of sequences of (N, T, D) or (N, T, 1).

    Args:
        tensors: query, key, value, gradient of the sums, logarithms, sums of gradient times sum; to be filled: those of
            query, and of key and value, which begin at 0.
        scale: of the scores.
    """
    query, key, value, gradient, normal, delta, to_query, to_key, to_value = tensors
    future = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=query.device).triu(1)
    for start in range(0, query.shape[1], BLOCK):
        end = min(start + BLOCK, query.shape[1])
        rows, seen = slice(start, end), slice(0, end)
        scores = torch.bmm(query[:, rows], key[:, seen].transpose(1, 2)).to(torch.float32)
        weights = torch.exp(scores.mul_(scale).sub_(normal[:, rows]))
        weights[:, :, start:end].masked_fill_(future[: end - start, : end - start], 0.0)
        to_weights = torch.bmm(gradient[:, rows], value[:, seen].transpose(1, 2)).to(torch.float32)
        to_scores = to_weights.sub_(delta[:, rows]).mul_(weights).mul_(scale).to(query.dtype)
        to_value[:, seen].baddbmm_(weights.to(query.dtype).transpose(1, 2), gradient[:, rows])
        to_key[:, seen].baddbmm_(to_scores.transpose(1, 2), query[:, rows])
        to_query[:, rows] = torch.bmm(to_scores, key[:, seen])


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Any, None]:
    """As transformers calls attention: q (B, H, T, D), k and v (B, H or fewer, T, D) in, (B, T, H, D) out.

    Whatever isn't plain causal training on a CPU (a mask of any other kind than that of packed documents, a window that
    hides something, dropout, keys and values of different sizes, keys of a cache) goes to torch's own kernels.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    documents = shown(attention_mask)
    ours = attention_mask is None or (documents is not None and _within(documents, more.get("sliding_window")))
    ours = ours and not dropout and query.shape[2] == key.shape[2] and key.shape == value.shape
    worth = query.requires_grad or documents is not None
    if not (ours and worth and query.device.type == "cpu" and more.get("is_causal", True)):
        seen, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return seen, None
    if torch.is_autocast_enabled("cpu"):  # autocast knows torch's attention, not what lies below it
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    spans = None if documents is None else _spans(documents)
    return BlockwiseAttention.apply(query, key, value, scale, spans).transpose(1, 2).contiguous(), None


def _within(documents: list[list[int]], window: int | None) -> bool:
    """Whether a window hides nothing of any document."""
    return window is None or max(max(row) for row in documents) <= window


def _spans(documents: list[list[int]]) -> list[Span]:
    """Where the documents lie whose lengths are told, row by row."""
    found = []
    for row, lengths in enumerate(documents):
        ends = list(accumulate(lengths))
        found += [(row, end - length, end) for length, end in zip(lengths, ends, strict=True)]
    return found


@contextmanager
def blockwise(model: Any) -> Iterator[None]:
    """Train `model` with this attention inside, where it uses torch's on a CPU otherwise; afterwards it is as it was."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    config = model.config
    if config._attn_implementation != "sdpa" or next(model.parameters()).device.type != "cpu":
        yield
        return
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # on the class: an entry in an instance would be ignored
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"
