"""What is kept of documents while they pass on their way into shards: held-out text and chats."""

from __future__ import annotations

from itertools import islice

from tasks.data import instructions
from tasks.data.documents import SPLITS, Document


class Kept:
    """The first bytes of the test split, and the first chats of every split.

    Attributes:
        heldout: texts, together at most `max_bytes`; the last is cut at a character.
        chats: by split.
    """

    def __init__(self, max_bytes: int, max_instructions: int) -> None:
        self.left = max_bytes
        self.heldout: list[str] = []
        self.chats: dict[str, list[instructions.Chat]] = {name: [] for name in SPLITS}
        self.limits = {name: max_instructions if name == "train" else max(1, max_instructions // 20) for name in SPLITS}

    def watch(self, split: str, document: Document) -> None:
        """Take from a document what is wanted of it."""
        chats = self.chats[split]
        if len(chats) < self.limits[split]:
            chats += islice(instructions.chats(document), self.limits[split] - len(chats))
        if split == "test" and self.left > 0:
            content = document.text.encode()[: self.left]
            text = content.decode(errors="ignore")
            if text:
                self.heldout.append(text)
            self.left -= len(content)
