"""Noise on the embeddings while training (NEFTune)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any


def noisy(model: Any, alpha: float | None) -> Any:
    """A context in which `model` trains with noise on what its decoder reads; none where `alpha` is None."""
    return nullcontext() if alpha is None else _noisy(model, alpha)


@contextmanager
def _noisy(model: Any, alpha: float) -> Iterator[None]:
    """Uniform noise of at most alpha / sqrt(L d) per number (arXiv:2310.05914), L tokens of d numbers in a sequence.

    L is that of a row, padding included, as in `transformers.integrations.neftune`; where a row holds several chats, that
    of the chat, which transformers' hook can't tell. Not in `eval()`.
    """
    from tasks.training.loss import causal_of

    decoder = causal_of(model).get_decoder()

    def add(
        module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not module.training:
            return None
        ids = kwargs.pop("input_ids", None)
        read = module.get_input_embeddings()(ids) if ids is not None else kwargs["inputs_embeds"]
        most = alpha / (_tokens(read, kwargs.get("position_ids")) * read.shape[-1]) ** 0.5
        kwargs["inputs_embeds"] = read + read.detach().new_empty(read.shape).uniform_(-1, 1) * most
        return args, kwargs

    handle = decoder.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _tokens(read: Any, positions: Any) -> Any:
    """For every token (B, T, 1) how many its sequence has: of a row, or from one position 0 to the next."""
    import torch

    if positions is None:
        return torch.full((1, 1, 1), float(read.shape[1]), device=read.device)
    number = (positions == 0).cumsum(1) - 1
    counts = torch.zeros_like(positions).scatter_add_(1, number, torch.ones_like(positions))
    return counts.gather(1, number)[..., None].to(read.dtype)
