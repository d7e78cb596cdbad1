"""Documents out of files: text, Python, JSON Lines, Parquet; duplicates dropped; split by a hash of the path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")
PIECE = 16_384
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Document:
    """A text or a chat, under a path that is the same on every machine."""

    path: str
    text: str
    messages: list[dict[str, str]] | None = None

    @property
    def sha256(self) -> str:
        """Identity of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass
class Corpus:
    """What was read: documents in order of their path's hash, and what was left out."""

    documents: list[Document] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    duplicates: int = 0
    unreadable: list[str] = field(default_factory=list)


def read(source: Path, text_field: str, max_documents: int | None = None) -> Corpus:
    """Read every document of a file or folder.

    Raises:
        UserError: nothing there, nothing readable, a record without the field, or fewer than three documents.
    """
    paths = _files(source)
    corpus, seen, times = Corpus(), set(), dict[str, int]()
    for path in paths:
        name = _whole(path.relative_to(source).as_posix() if source.is_dir() else path.name)
        content = path.read_bytes()
        corpus.files.append({"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        try:
            found = list(_documents(path, name, content, text_field, alone=len(paths) == 1))
        except ValueError as error:
            corpus.unreadable.append(f"{name}: {error}")
            continue
        for document in found:
            if not document.text.strip():
                continue
            times[document.path] = count = times.get(document.path, 0) + 1
            if count > 1:  # one path for many records: told apart, or all of them would land in one split
                document = replace(document, path=f"{count}#{document.path}")
            if document.sha256 in seen:
                corpus.duplicates += 1
            else:
                seen.add(document.sha256)
                corpus.documents.append(document)
    if max_documents is not None:
        # a hash of its own: by the hash that splits, the first documents would all be test documents
        corpus.documents = sorted(corpus.documents, key=lambda d: _hash(f"keep {d.path}"))[:max_documents]
    corpus.documents.sort(key=lambda d: _hash(d.path))
    if not corpus.documents and corpus.unreadable:
        raise UserError(f"data.source '{source}': nothing could be read: {'; '.join(corpus.unreadable[:3])}")
    if len(corpus.documents) < len(SPLITS):
        raise UserError(
            f"data.source '{source}': found {len(corpus.documents)} document(s); train, validation and test need one each",
            "add documents, or give one longer .txt file (it is cut into pieces)",
        )
    return corpus


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"data.source '{source}': no such file or folder")
    found = sorted(path for path in source.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"data.source '{source}': no {' '.join(SUFFIXES)} file in this folder")
    return found


def _documents(path: Path, name: str, content: bytes, text_field: str, alone: bool) -> Iterator[Document]:
    if not content:
        raise ValueError("empty file")
    if path.suffix == ".parquet":
        yield from _parquet(path, name, text_field)
        return
    text = _decode(content)
    if path.suffix == ".jsonl":
        yield from _jsonl(text, name, text_field)
    elif alone:
        yield from _pieces(text, name)
    else:
        yield Document(name, text)


def _decode(content: bytes) -> str:
    if b"\0" in content[:65536]:
        raise ValueError("binary, not text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 ({error.reason} at byte {error.start}): convert it first") from None


def _pieces(text: str, name: str) -> Iterator[Document]:
    """A lone file is cut at line ends into pieces, so that it can be split."""
    lines, size, number = [], 0, 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= PIECE:
            yield Document(f"{name}#{number}", "".join(lines))
            lines, size, number = [], 0, number + 1
    if lines:
        yield Document(f"{name}#{number}", "".join(lines))


def _jsonl(text: str, name: str, text_field: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{name}, line {number}: not valid JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{name}, line {number}: expected an object, found {type(record).__name__}")
        yield _record(record, f"{name}#{number}", f"{name}, line {number}", text_field)


def _parquet(path: Path, name: str, text_field: str) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"not a Parquet file ({str(error).splitlines()[0]})") from None
    wanted = [column for column in table.schema_arrow.names if column in (text_field, "messages", "path")]
    if not {text_field, "messages"} & set(wanted):
        raise UserError(
            f"{name}: no column '{text_field}' (data.text_field) and none named 'messages'",
            f"its columns: {', '.join(table.schema_arrow.names)}",
        )
    number = 0
    for batch in table.iter_batches(batch_size=1024, columns=wanted):
        for record in batch.to_pylist():
            path_inside = str(record.pop("path", None) or number)
            yield _record(record, f"{name}#{path_inside}", f"{name}, row {number}", text_field)
            number += 1


def _record(record: dict[str, Any], path: str, where: str, text_field: str) -> Document:
    messages, text = record.get("messages"), record.get(text_field)
    if messages is not None:
        _check_messages(messages, where)
        chat = [{"role": m["role"], "content": _whole(m["content"])} for m in messages]
        return Document(path, "\n\n".join(m["content"] for m in chat), chat)
    if not isinstance(text, str):
        raise UserError(
            f"{where}: no text in field '{text_field}' (data.text_field) and no 'messages'",
            f"its fields: {', '.join(record) or 'none'}",
        )
    return Document(path, _whole(text))


def _whole(text: str) -> str:
    """Half a character (a lone surrogate of JSON's escapes) can't be written as UTF-8: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _check_messages(messages: Any, where: str) -> None:
    fine = isinstance(messages, list) and messages
    if not fine or not all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in messages):
        raise UserError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'")
    if not all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in messages):
        raise UserError(f"{where}: 'role' and 'content' of a message must be text")


def _hash(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def split(documents: list[Document], validation: float, test: float) -> dict[str, list[Document]]:
    """Train, validation and test by the hash of the path alone, so that a file never changes sides when others come.

    With so few documents that a split would be empty it takes one from the training documents.
    """
    parts: dict[str, list[Document]] = {name: [] for name in SPLITS}
    for document in documents:
        position = int(_hash(document.path)[:12], 16) / 16**12
        name = "test" if position < test else "validation" if position < test + validation else "train"
        parts[name].append(document)
    for name in SPLITS:
        if not parts[name]:
            parts[name].append(max(parts.values(), key=len).pop(0))
    return parts
