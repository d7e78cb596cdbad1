"""Loyalty and fidelity: how much a compressed model answers like the original, beyond scoring like it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.evaluate import Evaluate
from tasks.evaluate.text import tensors, windows

MAX_POSITIONS = 16_384
CHUNK_BYTES = 1 << 24
BATCH_BYTES = 1 << 26


@dataclass(frozen=True)
class Loyalty:
    """How alike two models' next-token distributions are.

    Attributes:
        label: share of positions where both have the same top token (arXiv:2109.03228).
        probability: 1 - Jensen-Shannon distance, base 2, mean over positions (arXiv:2109.03228).
        kl_nats: KL(original || compressed) in nats, mean over positions (arXiv:2106.05945).
        positions: number of positions compared.
    """

    label: float
    probability: float
    kl_nats: float
    positions: int

    @property
    def note(self) -> str:
        """Over what it was taken."""
        return f"mean over the first {self.positions} held-out tokens (at most {MAX_POSITIONS})"


def compare(original: Any, compressed: Any, tokenizer: Any, texts: list[str], params: Evaluate, job: Job) -> Loyalty:
    """Run both models over the first `MAX_POSITIONS` tokens of `texts` and compare what they predict.

    No more logits are held than one small batch of each model's.

    Raises:
        UserError: no text, or predictions that are not numbers.
    """
    import torch

    rows = _first(windows(tokenizer, texts, params.context_length), MAX_POSITIONS)
    if not rows:
        raise UserError("no held-out text to compare on", "raise data.test_fraction or add documents")
    sums = torch.zeros(3, dtype=torch.float64)
    size = max(1, BATCH_BYTES // (4 * params.context_length * int(original.config.vocab_size)))
    batches = [rows[at : at + size] for at in range(0, len(rows), size)]
    with torch.inference_mode():
        for batch in job.track(batches, len(batches), "loyalty batch"):
            ordered = sorted(batch, key=len, reverse=True)
            p, q = (_logits(model, ordered) for model in (original, compressed))
            sums += _sums(p, q)
    positions = sum(len(row) - 1 for row in rows)
    label, distance, kl = (float(value) / positions for value in sums)
    if not math.isfinite(distance + kl):
        raise UserError("the models' predictions on held-out text are not numbers: weights are damaged or overflow")
    return Loyalty(label, 1 - distance, kl, positions)


def _first(rows: list[list[int]], positions: int) -> list[list[int]]:
    kept: list[list[int]] = []
    for row in rows:
        if positions <= 0:
            break
        kept.append(row[: positions + 1])
        positions -= len(row) - 1
    return kept


def _logits(model: Any, rows: list[list[int]]) -> Any:
    inputs, labels = tensors(rows, model.device)
    logits = model(input_ids=inputs, use_cache=False).logits[:, -inputs.shape[1] :]  # virtual tokens stand before
    return logits[labels != -100].cpu()


def _sums(p_logits: Any, q_logits: Any) -> Any:
    import torch

    chunk = max(1, CHUNK_BYTES // (4 * p_logits.shape[-1]))
    pairs = zip(p_logits.split(chunk), q_logits.split(chunk), strict=True)
    return torch.stack([torch.stack(divergences(p, q)).double().sum(1) for p, q in pairs]).sum(0)


def divergences(p_logits: Any, q_logits: Any) -> tuple[Any, Any, Any]:
    """Compare two models position by position.

    Args:
        p_logits: the original's logits (N, V).
        q_logits: the compressed model's logits (N, V).

    Returns:
        Three tensors (N,): same top token (0 or 1), Jensen-Shannon distance (base 2, 0 to 1), KL(p || q) in nats.
    """
    import torch

    p_logits, q_logits = p_logits.float(), q_logits.float()
    log_p, log_q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    kl = (p * (log_p - log_q)).sum(-1).clamp_min(0)
    # a ratio and not a difference of logarithms: equal distributions then give exactly 0, which the root would magnify
    middle = ((p + q) / 2).clamp_min(torch.finfo(torch.float32).tiny)
    divergence = (torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle)).sum(-1) / 2
    distance = (divergence / math.log(2)).clamp(0, 1).sqrt()
    same = (p_logits.argmax(-1) == q_logits.argmax(-1)).float()
    return same, distance, kl
