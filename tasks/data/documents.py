"""Documents out of files, one after the other: text, Python, and rows of records; split by a hash of the path."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tasks.core.errors import UserError
from tasks.data.files import RECORDS, File
from tasks.data.formats import FORMATS
from tasks.data.formats.format import Record, Row
from tasks.data.records import recognised_as, rows

PIECE = 16_384
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Document:
    """A text, or what a record holds, under a path that is the same on every machine."""

    path: str
    text: str
    rows: dict[str, Row] | None = None
    """Kind of training (see `tasks.data.kinds`) -> the row it gets; None: it is text alone."""
    group: str = "."
    """Top folder of its path, or the file of records it is in; what mixtures weigh."""

    @property
    def content(self) -> str:
        """What makes it the same as another: a chat's text, and all of a record with more than one answer or none."""
        return self.text if not self.rows or set(self.rows) == {"chats"} else json.dumps(self.rows, sort_keys=True)


class Named(Protocol):
    """Anything with the path of a document."""

    @property
    def path(self) -> str:
        """Where it is, below the source."""


N = TypeVar("N", bound=Named)


class Reading:
    """The documents of some files, as often as they are asked for.

    Attributes:
        formats: file of records -> format it was read as, once it was begun.
    """

    def __init__(self, files: list[File], text_field: str, wanted: str = "auto") -> None:
        self.files, self.text_field, self.wanted = files, text_field, wanted
        self.formats: dict[str, str] = {}

    def __iter__(self) -> Iterator[Document]:
        """Every document that isn't blank, in order of the files; one at a time is in memory.

        Raises:
            UserError: a row that isn't valid, by file, row and field.
        """
        for file in self.files:
            for document in self._documents(file):
                if document.text.strip():
                    yield document

    def _documents(self, file: File) -> Iterator[Document]:
        path, name = file.path, file.name
        if path.suffix in RECORDS:
            yield from self._records(file)
        elif len(self.files) == 1:
            yield from _pieces(path, name)
        else:
            group = name.partition("/")[0] if "/" in name else "."
            yield Document(name, path.read_bytes().decode("utf-8-sig"), group=group)

    def _records(self, file: File) -> Iterator[Document]:
        first = None if self.wanted == "auto" else FORMATS[self.wanted]
        for row in rows(file, self.text_field):
            record = Record(row.fields, row.where, self.text_field)
            if self.wanted == "auto":
                first = recognised_as(first, record)
            assert first is not None
            self.formats[file.name] = first.name
            parsed = first.read(record)
            yield Document(row.path, parsed.text, parsed.rows, row.group)


def _pieces(path: Path, name: str) -> Iterator[Document]:
    """A lone file is cut at line ends into pieces, so that it can be split."""
    lines, size, number = [], 0, 0
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in (part for whole in file for part in whole.splitlines(keepends=True)):
            lines.append(line)
            size += len(line)
            if size >= PIECE:
                yield Document(f"{name}#{number}", "".join(lines), group=name)
                lines, size, number = [], 0, number + 1
    if lines:
        yield Document(f"{name}#{number}", "".join(lines), group=name)


def hash_of(path: str) -> str:
    """What decides a document's split and its place in a shard."""
    return hashlib.sha256(path.encode()).hexdigest()


def split(
    documents: list[N], validation: float, test: float, leaders: dict[str, str] | None = None
) -> dict[str, list[N]]:
    """Train, validation and test by the hash of the path alone, so that a file never changes sides when others come.

    With so few documents that a split would be empty it takes one, or one group, from the training documents.

    Args:
        documents: in the order they keep.
        validation: share of the documents.
        test: share of the documents.
        leaders: path -> path whose hash decides, for documents that stay together.

    Raises:
        UserError: there are fewer groups than splits.
    """
    lead = leaders or {}
    parts: dict[str, list[N]] = {name: [] for name in SPLITS}
    for document in documents:
        position = int(hash_of(lead.get(document.path, document.path))[:12], 16) / 16**12
        name = "test" if position < test else "validation" if position < test + validation else "train"
        parts[name].append(document)
    for name in SPLITS:
        if not parts[name]:
            largest = max(parts.values(), key=len)
            sizes = Counter(lead.get(document.path, document.path) for document in largest)
            if len(sizes) < 2:
                raise UserError(
                    f"data: {len(documents)} records are near-duplicates of so few that train, validation and test "
                    "can't have one each",
                    "add records whose prompts differ",
                )
            least = min(sizes, key=lambda path: sizes[path])  # the first of the smallest groups
            parts[name] = [d for d in largest if lead.get(d.path, d.path) == least]
            largest[:] = [d for d in largest if lead.get(d.path, d.path) != least]
    return parts
