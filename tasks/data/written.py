"""What is kept of documents while they pass on their way into shards: held-out text, and rows for finetuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.data.documents import SPLITS, Document
from tasks.data.formats.format import Row
from tasks.data.groups import SAMPLE, Groups
from tasks.data.instructions import chats
from tasks.data.kinds import CHATS, KINDS, asked

LISTED = 1000
"""Rows that the manifest names; those beyond are counted."""
BEYOND = "beyond data.max_instructions"


@dataclass(frozen=True)
class Taken:
    """A row and the document it is from."""

    path: str
    row: Row
    made: bool
    """It was made from the text of a document, which stays where it is."""


class Kept:
    """The first bytes of the test split, and the first rows of every kind and split.

    Attributes:
        heldout: rows with a text each, together at most `max_bytes`, the last cut at a character; "record": finetuning learns
            from others like it.
        rows: by kind and split.
        why: (kind, reason) -> rows left out.
        left_out: path, kind and reason of the first of them.
        moved: path, and from which split to which, of rows that went to their near-duplicates.
    """

    def __init__(self, max_bytes: int, max_instructions: int) -> None:
        self.left = max_bytes
        self.heldout: list[dict[str, Any]] = []
        self.rows: dict[str, dict[str, list[Taken]]] = {kind: {name: [] for name in SPLITS} for kind in KINDS}
        self.limits = {name: max_instructions if name == "train" else max(1, max_instructions // 20) for name in SPLITS}
        self.why: Counter[tuple[str, str]] = Counter()
        self.left_out: list[dict[str, str]] = []
        self.moved: list[dict[str, str]] = []

    def watch(self, split: str, document: Document) -> None:
        """Take text and rows."""
        self.hold(split, document, learned=document.rows is not None)
        self.take(split, document)

    def hold(self, split: str, document: Document, learned: bool = False) -> None:
        """Take the text of a test document, as long as there is room; `learned`: finetuning learns from such records."""
        if split == "test" and self.left > 0:
            content = document.text.encode()[: self.left]
            text = content.decode(errors="ignore")
            if text:
                self.heldout.append({"text": text} | ({"record": True} if learned else {}))
            self.left -= len(content)

    def take(self, split: str, document: Document) -> None:
        """Take the rows of a document; what teaches nothing, or is one too many, is counted."""
        made = document.rows is None
        if made and self._full(CHATS, split):  # parsing a text only to count what it could give would take minutes
            return
        for kind, row in _rows(document):
            taken = self.rows[kind][split]
            full = self._full(kind, split)
            if full and made:  # how many more could be made nobody looks
                return
            reason = KINDS[kind].lacks(row) or (BEYOND if full else "")
            if reason:
                self.leave_out(document.path, kind, reason)
            else:
                taken.append(Taken(document.path, row, made))

    def _full(self, kind: str, split: str) -> bool:
        return len(self.rows[kind][split]) >= self.limits[split]

    def leave_out(self, path: str, kind: str, reason: str) -> None:
        """Count a row that isn't kept."""
        self.why[kind, reason] += 1
        if reason != BEYOND and len(self.left_out) < LISTED:
            self.left_out.append({"path": path, "kind": kind, "why": reason})

    def gather(self) -> None:
        """Bring rows made from texts together with their near-duplicates.

        The texts stay in their shards, so a group with a row of the training text is trained on, and one with a row of
        the validation text validates: what was trained on is no test.
        """
        if not any(taken.made for splits in self.rows.values() for part in splits.values() for taken in part):
            return
        every = [
            (kind, split, taken) for kind, splits in self.rows.items() for split in SPLITS for taken in splits[split]
        ]
        prompts = [asked({kind: taken.row}) for kind, _, taken in every]
        groups = Groups(prompts[:: max(1, len(prompts) // SAMPLE)])
        for number, prompt in enumerate(prompts):
            groups.add(str(number), prompt)
        groups.close()
        leaders = {int(key): int(leader) for key, leader in groups.leaders().items()}
        sides: dict[int, str] = {}
        for number, leader in leaders.items():
            sides[leader] = min(sides.get(leader, SPLITS[-1]), every[number][1], key=SPLITS.index)
        for kind, splits in self.rows.items():
            self.rows[kind] = {name: [] for name in splits}
        for number, (kind, split, taken) in enumerate(every):
            side = sides[leaders[number]] if number in leaders else split
            self.rows[kind][side].append(taken)
            if side != split:
                self.moved.append({"path": taken.path, "from": split, "to": side})
        for kind, splits in self.rows.items():
            for name, limit in self.limits.items():
                self.why[kind, BEYOND] += len(splits[name][limit:])
                del splits[name][limit:]


def _rows(document: Document) -> Iterator[tuple[str, Row]]:
    if document.rows is not None:
        yield from document.rows.items()
    else:
        for messages in chats(document):
            yield CHATS, {"messages": messages}
