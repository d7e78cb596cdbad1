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
from tasks.ledger.predict.subject import Subject
from tasks.models.chat import padded
from tasks.models.packing import Dealer

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
    packed = packs(params, about.config)
    try:
        changed = SIZES.stat().st_mtime_ns
    except OSError:
        return _estimated(about, packed)
    key = (changed, str(SIZES.resolve()), identity)
    dealing = (params.batch_size, packed, params.group_by_length, params.gradient_accumulation_steps)
    found = _dealt(key, params.steps, params.context_length, about.params.seed, dealing)
    return found or _estimated(about, packed)


@lru_cache(maxsize=256)
def _dealt(
    written: tuple[int, str, str], steps: int, context_length: int, seed: int, dealing: tuple[int, bool, bool, int]
) -> Batches | None:
    """The batches as training will deal them; None where no chats are known or none is trained on."""
    known = _known(*written)
    chosen = [size for size in known.get("train", ()) if size[0] <= context_length]
    if not chosen or not steps:
        return None
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
    held = tuple(size[0] for size in known.get("validation", ()) if size[0] <= context_length)
    kept = sum(len(rows.chats) * rows.length for rows in Dealer(held, batch_size, 0, packed).in_turn())
    return Batches(dict(documents), dict(shapes), labelled / tokens, kept, "the chats themselves")


def _estimated(about: Subject, packed: bool) -> Batches:
    """All batches as long as a typical one of the standard library's chats."""
    params = about.params.finetune
    longest = constants.LONGEST_CHAT_BYTES + constants.LONGER_PER_DOUBLING * log2(params.batch_size)
    length = padded(max(1, int(min(params.context_length, longest / about.chat_bytes_per_token))))
    steps, held = max(1, params.steps), max(1, about.params.data.max_instructions // 20)
    note, labelled = "typical chats; exact once the data is there", constants.LABELLED_SHARE
    if not packed:
        documents, shapes = {length: steps * params.batch_size}, {(params.batch_size, length): steps}
        return Batches(documents, shapes, labelled, held * length, note)
    mean = max(1, int(min(params.context_length, constants.CHAT_BYTES / about.chat_bytes_per_token)))
    rows = Dealer(
        (mean,) * params.batch_size, params.batch_size, 0, True, False, params.gradient_accumulation_steps
    ).step(0)
    counts = Counter(length for row in rows.documents((mean,) * params.batch_size) for length in row)
    tokens = len(rows.chats) * rows.length
    return Batches(
        {length: count * steps for length, count in counts.items()},
        {(len(rows.chats), rows.length): steps},
        min(1.0, labelled * length * params.batch_size / tokens),
        held * tokens / params.batch_size,
        note,
    )


@lru_cache(maxsize=4)
def _known(_changed: int, path: str, identity: str) -> dict[str, list[list[int]]]:
    """Sizes of the chats the data stage wrote with these parameters; nothing if it wrote none or with others."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        return dict(stored["tokens_and_labelled"]) if stored["of"] == identity else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
