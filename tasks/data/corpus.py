"""What a source holds, known without holding it: a short entry per document, texts only while they pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import UserError
from tasks.data.documents import SPLITS, Document, Reading, hash_of
from tasks.data.files import Files, inspect
from tasks.data.groups import SAMPLE
from tasks.data.kinds import asked


@dataclass(frozen=True, slots=True)
class Entry:
    """A document without its text."""

    path: str
    digest: bytes
    """SHA-256 of its content: of the text, or of all of a record."""
    size: int
    """UTF-8 bytes of the text."""
    group: str


@dataclass(frozen=True)
class Corpus:
    """Entries in order of their path's hash, and what was left out. Memory: some 400 bytes per document."""

    entries: list[Entry]
    files: Files
    duplicates: int
    reading: Reading
    prompts: list[str]
    """Of the first records, whose common words are a template's."""

    def documents(self) -> Iterator[Document]:
        """The documents again, with their texts, in order of the files."""
        wanted = {entry.path for entry in self.entries}
        return (document for document in self.reading if document.path in wanted)


def survey(
    source: Path,
    text_field: str,
    max_documents: int | None = None,
    identical: bool = True,
    wanted: str = "auto",
    name: str = "data.source",
) -> Corpus:
    """Pass over every document of a file or folder.

    Args:
        source: file or folder.
        text_field: key or column of records that holds the text.
        max_documents: keep that many, by a hash of their path; None: all.
        identical: keep only the first of documents with the very same text.
        wanted: format of its records (`data.format`).
        name: the parameter that names the source.

    Raises:
        UserError: nothing there, nothing readable, a record that isn't valid, or fewer than three documents.
    """
    files, seen, duplicates = inspect(source, name), set[bytes](), 0
    entries, prompts = list[Entry](), list[str]()
    reading = Reading(files.readable, text_field, wanted)
    for document in reading:
        digest = hashlib.sha256(document.content.encode()).digest()
        if identical and digest in seen:
            duplicates += 1
            continue
        seen.add(digest)
        entries.append(Entry(document.path, digest, len(document.text.encode()), document.group))
        if document.rows and len(prompts) < SAMPLE:
            prompts.append(asked(document.rows))
    if max_documents is not None:
        # a hash of its own: by the hash that splits, the first documents would all be test documents
        entries = sorted(entries, key=lambda e: hash_of(f"keep {e.path}"))[:max_documents]
    entries.sort(key=lambda e: hash_of(e.path))
    _refuse_too_few(len(entries), files, source, name)
    return Corpus(entries, files, duplicates, reading, prompts)


def _refuse_too_few(found: int, files: Files, source: Path, name: str) -> None:
    if not found and files.unreadable:
        raise UserError(
            f"{name} '{source}': nothing could be read: {'; '.join(files.unreadable[:3])}",
            "mend or replace these files, or name another source",
        )
    if found < len(SPLITS):
        raise UserError(
            f"{name} '{source}': found {found} document(s); train, validation and test need one each",
            "add documents, or give one longer .txt file (it is cut into pieces)",
        )
