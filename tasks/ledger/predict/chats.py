"""How long the batches of chats will be: from the chats themselves once the data stage has written them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import log2
from pathlib import Path

from tasks.ledger.predict import constants
from tasks.ledger.predict.rows import sampled_sizes
from tasks.ledger.predict.subject import Subject
from tasks.models.chat import batch_indices, padded

DEALT = 100
"""Batches from which those of a run are estimated."""

SIZES = Path("artifacts/data/instructions/sizes.json")


@dataclass(frozen=True)
class Batches:
    """The batches of a finetuning run.

    Attributes:
        lengths: tokens of a row, padding included -> how many steps have such a batch.
        labelled: share of all tokens that are an answer's.
        held: tokens of the held-out chats, padding included.
        note: where this is known from.
    """

    lengths: dict[int, int]
    labelled: float
    held: float
    note: str

    def mean(self, per_token: Callable[[int], float]) -> float:
        """Mean over all tokens of a quantity that depends on the length of the row."""
        tokens = sum(length * steps for length, steps in self.lengths.items())
        return sum(per_token(length) * length * steps for length, steps in self.lengths.items()) / tokens

    @property
    def row(self) -> float:
        """Mean tokens of a row."""
        return sum(length * steps for length, steps in self.lengths.items()) / sum(self.lengths.values())


def batches(about: Subject) -> Batches:
    """Exactly those of the training to come where the data is there, else estimated from its text."""
    params, identity = about.params.finetune, about.params.data.identity
    if not params.objective.technique.of_chats:
        return estimated(about)
    try:
        changed = SIZES.stat().st_mtime_ns
    except OSError:
        return estimated(about)
    found = _dealt(
        (changed, str(SIZES.resolve()), identity),
        params.steps,
        params.batch_size,
        params.context_length,
        about.params.seed,
    )
    return found or estimated(about)


@lru_cache(maxsize=256)
def _dealt(
    written: tuple[int, str, str], steps: int, batch_size: int, context_length: int, seed: int
) -> Batches | None:
    """The batches as training will deal them; None where no chats are known or none is trained on."""
    known = _known(*written)
    fitting = {
        split: [(size[0], size[1]) for size in known.get(split, ()) if size[0] <= context_length and size[1]]
        for split in ("train", "validation")
    }
    if not fitting["train"] or not steps:
        return None
    held = [tokens for tokens, _ in fitting["validation"]]
    parts = [held[at : at + batch_size] for at in range(0, len(held), batch_size)]
    kept = sum(padded(max(part)) * len(part) for part in parts)
    return _deal(fitting["train"], steps, batch_size, seed, kept, "the chats themselves")


def _deal(chosen: list[tuple[int, int]], steps: int, batch_size: int, seed: int, held: float, note: str) -> Batches:
    lengths: Counter[int] = Counter()
    labelled = 0
    for step in range(steps):
        rows = [chosen[i] for i in batch_indices(len(chosen), step, batch_size, seed)]
        lengths[padded(max(tokens for tokens, _ in rows))] += 1
        labelled += sum(answer for _, answer in rows)
    tokens = batch_size * sum(length * count for length, count in lengths.items())
    return Batches(dict(lengths), labelled / tokens, held, note)


def estimated(about: Subject) -> Batches:
    """From the first records of the source, else all batches as long as a typical one of the standard library's chats."""
    params, objective = about.params.finetune, about.params.finetune.objective.technique
    sampled = sampled_sizes(about.params.data, about.chat_bytes_per_token) if objective.of_chats else []
    fitting = [size for size in sampled if size[0] <= params.context_length]
    if fitting and params.steps:
        held = max(1, about.params.data.max_instructions // 20) * sum(tokens for tokens, _ in fitting) / len(fitting)
        note = f"the first {len(sampled)} records; exact once the data is there"
        return _deal(fitting, min(params.steps, DEALT), params.batch_size, about.params.seed, held, note)
    longest = constants.LONGEST_CHAT_BYTES + constants.LONGER_PER_DOUBLING * log2(params.batch_size)
    length = padded(max(1, int(min(params.context_length, longest / about.chat_bytes_per_token))))
    length = min(params.context_length, objective.length(length, constants.LABELLED_SHARE))
    held = max(1, about.params.data.max_instructions // 20) * length * objective.sequences
    if objective.of_chats:
        return Batches(
            {length: max(1, params.steps)},
            constants.LABELLED_SHARE,
            held,
            "typical chats; exact once the data is there",
        )
    return Batches({length: max(1, params.steps)}, 1.0, held, "assumed to be typical of chats")


@lru_cache(maxsize=4)
def _known(_changed: int, path: str, identity: str) -> dict[str, list[list[int]]]:
    """Sizes of the chats the data stage wrote with these parameters; nothing if it wrote none or with others."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        return dict(stored["tokens_and_labelled"]) if stored["of"] == identity else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
