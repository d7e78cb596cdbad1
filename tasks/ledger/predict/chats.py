"""How long the batches of chats will be: from the chats themselves once the data stage has written them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import log2
from pathlib import Path

from tasks.finetune.conflicts import packs
from tasks.ledger.predict import constants
from tasks.ledger.predict.rows import sampled_sizes
from tasks.ledger.predict.subject import Subject
from tasks.models.chat import padded
from tasks.models.packing import Dealer

DEALT = 100
"""Batches from which those of a run are estimated."""

Dealing = tuple[int, bool, bool, int]
"""Chats per step, whether they share rows, whether they are grouped by length, parts of a step."""

SIZES = Path("artifacts/data/instructions/sizes.json")


@dataclass(frozen=True)
class Batches:
    """The batches of a finetuning run.

    Attributes:
        documents: tokens of what sees itself alone, a row or a packed chat -> how many there are in the run.
        shapes: rows of a step and tokens of a row, padding included -> how many steps have such a batch.
        labelled: share of all tokens that are an answer's.
        held: tokens of the held-out chats, padding included.
        note: where this is known from.
    """

    documents: dict[int, int]
    shapes: dict[tuple[int, int], int]
    labelled: float
    held: float
    note: str

    def mean(self, per_token: Callable[[int], float]) -> float:
        """Mean over all tokens of a quantity that depends on the length of the document."""
        return sum(per_token(length) * length * count for length, count in self.documents.items()) / self.all

    @property
    def all(self) -> int:
        """Tokens of the run."""
        return sum(length * count for length, count in self.documents.items())

    @property
    def tokens(self) -> float:
        """Mean tokens of a step."""
        return self.all / sum(self.shapes.values())

    @property
    def row(self) -> float:
        """Mean tokens of a document."""
        return self.all / sum(self.documents.values())

    def largest(self, parts: int) -> int:
        """Tokens of the largest part of a step."""
        return max(-(-rows // parts) * length for rows, length in self.shapes)


def batches(about: Subject) -> Batches:
    """Exactly those of the training to come where the data is there, else estimated from its text."""
    params, identity = about.params.finetune, about.params.data.identity
    if not params.objective.technique.of_chats:
        return estimated(about)
    try:
        changed = SIZES.stat().st_mtime_ns
    except OSError:
        return estimated(about)
    key, dealing = (changed, str(SIZES.resolve()), identity), _dealing(about)
    found = _dealt(key, params.steps, params.context_length, about.params.seed, dealing)
    return found or estimated(about)


def _dealing(about: Subject) -> Dealing:
    params = about.params.finetune
    return params.batch_size, packs(params, about.config), params.group_by_length, params.gradient_accumulation_steps


@lru_cache(maxsize=256)
def _dealt(
    written: tuple[int, str, str], steps: int, context_length: int, seed: int, dealing: Dealing
) -> Batches | None:
    """The batches as training will deal them; None where no chats are known or none is trained on."""
    known = _known(*written)
    fitting = {
        split: [(size[0], size[1]) for size in known.get(split, ()) if size[0] <= context_length and size[1]]
        for split in ("train", "validation")
    }
    if not fitting["train"] or not steps:
        return None
    batch_size, packed, _, _ = dealing
    held = tuple(tokens for tokens, _ in fitting["validation"])
    kept = sum(len(rows.chats) * rows.length for rows in Dealer(held, batch_size, 0, packed).in_turn())
    return _deal(fitting["train"], steps, seed, kept, "the chats themselves", dealing)


def _deal(chosen: list[tuple[int, int]], steps: int, seed: int, held: float, note: str, dealing: Dealing) -> Batches:
    batch_size, packed, grouped, parts = dealing
    lengths = tuple(tokens for tokens, _ in chosen)
    dealt = Dealer(lengths, batch_size, seed, packed, grouped, parts)
    documents, shapes, labelled = Counter[int](), Counter[tuple[int, int]](), 0
    for step in range(steps):
        rows = dealt.step(step)
        shapes[len(rows.chats), rows.length] += 1
        documents.update(length for row in rows.documents(lengths) for length in row)
        labelled += sum(chosen[chat][1] for row in rows.chats for chat in row)
    tokens = sum(length * count for length, count in documents.items())
    return Batches(dict(documents), dict(shapes), labelled / tokens, held, note)


def estimated(about: Subject) -> Batches:
    """From the first records of the source, else all batches as long as a typical one of the standard library's chats."""
    params, objective = about.params.finetune, about.params.finetune.objective.technique
    steps, chats = max(1, params.steps), max(1, about.params.data.max_instructions // 20)
    sampled = sampled_sizes(about.params.data, about.chat_bytes_per_token) if objective.of_chats else []
    if (fitting := [size for size in sampled if size[0] <= params.context_length]) and params.steps:
        held = chats * sum(tokens for tokens, _ in fitting) / len(fitting)
        note = f"the first {len(sampled)} records; exact once the data is there"
        return _deal(fitting, min(steps, DEALT), about.params.seed, held, note, _dealing(about))
    longest = constants.LONGEST_CHAT_BYTES + constants.LONGER_PER_DOUBLING * log2(params.batch_size)
    length = padded(max(1, int(min(params.context_length, longest / about.chat_bytes_per_token))))
    length = min(params.context_length, objective.length(length, constants.LABELLED_SHARE))
    sequences, note = params.batch_size * objective.sequences, "typical chats; exact once the data is there"
    if objective.of_chats and packs(params, about.config):
        mean = max(1, int(min(params.context_length, constants.CHAT_BYTES / about.chat_bytes_per_token)))
        labelled = min(mean, round(constants.LABELLED_SHARE * length))
        like = [(mean, labelled)] * params.batch_size
        held = chats * float(mean)
        return _deal(like, steps, about.params.seed, held, note, _dealing(about))
    documents, shapes = {length: steps * sequences}, {(sequences, length): steps}
    held = float(chats * length * objective.sequences)
    if not objective.of_chats:
        return Batches(documents, shapes, 1.0, held, "assumed to be typical of chats")
    return Batches(documents, shapes, constants.LABELLED_SHARE, held, note)


@lru_cache(maxsize=4)
def _known(_changed: int, path: str, identity: str) -> dict[str, list[list[int]]]:
    """Sizes of the chats the data stage wrote with these parameters; nothing if it wrote none or with others."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        return dict(stored["tokens_and_labelled"]) if stored["of"] == identity else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
