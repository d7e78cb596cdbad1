"""Documents on disk in the order shards want them, so that a corpus larger than memory can be gone through again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.data.documents import Document, hash_of

BUCKET = 2_000_000
"""Bytes of text a bucket should hold; one bucket at a time is in memory."""


class Spill:
    """Documents with their split, in order of their path's hash.

    A document goes to the bucket that the first 32 bits of its path's hash name; bucket after bucket, each sorted when
    it is read, gives the order of the whole.

    Attributes:
        split_of: path -> split; it may be set after the documents were taken, before they are gone through.
        dropped: paths that are no longer gone through.
    """

    def __init__(self, folder: Path, size: int, split_of: dict[str, str] | None = None) -> None:
        self.folder, self.split_of, self.dropped = folder, split_of or {}, set[str]()
        self.buckets = -(-size // BUCKET) or 1
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
        folder.mkdir(parents=True)

    def __len__(self) -> int:
        return len(self.split_of) - len(self.dropped)

    def fill(self, documents: Iterable[Document]) -> None:
        """Write every document to its bucket; one file is open at a time."""
        for document in documents:
            key = hash_of(document.path)
            row = [key, document.path, document.text, document.rows, document.group]
            with (self.folder / str(int(key[:8], 16) * self.buckets >> 32)).open("ab") as file:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def rows(self, *splits: str) -> Iterator[tuple[str, Document]]:
        """Split and document, in order; `splits`: only of these."""
        for number in range(self.buckets):
            path = self.folder / str(number)
            lines = sorted(path.read_bytes().splitlines()) if path.exists() else []  # a line begins with the hash
            for line in lines:
                _, name, text, given, group = json.loads(line)
                split = self.split_of[name]
                if name not in self.dropped and (not splits or split in splits):
                    yield split, Document(name, text, given, group)

    def texts(self, *splits: str) -> Iterator[str]:
        """The texts alone."""
        return (document.text for _, document in self.rows(*splits))

    def remove(self) -> None:
        """Give the disk back."""
        shutil.rmtree(self.folder)
