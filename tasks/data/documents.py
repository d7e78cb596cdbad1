"""Documents out of files, one after the other: text, Python, JSON Lines, Parquet; split by a hash of the path."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tasks.core.errors import UserError
from tasks.data.files import File

PIECE = 16_384
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Document:
    """A text or a chat, under a path that is the same on every machine."""

    path: str
    text: str
    messages: list[dict[str, str]] | None = None
    group: str = "."
    """Top folder of its path, or the file of records it is in; what mixtures weigh."""


class Named(Protocol):
    """Anything with the path of a document."""

    @property
    def path(self) -> str:
        """Where it is, below the source."""


N = TypeVar("N", bound=Named)


def stream(files: list[File], text_field: str) -> Iterator[Document]:
    """Every document that isn't blank, in order of the files; one at a time is in memory.

    Raises:
        UserError: a record without the field, or a line that isn't JSON.
    """
    for file in files:
        for document in _documents(file, text_field, alone=len(files) == 1):
            if document.text.strip():
                yield document


def _documents(file: File, text_field: str, alone: bool) -> Iterator[Document]:
    path, name = file.path, file.name
    if path.suffix == ".parquet":
        yield from _parquet(path, name, text_field)
    elif path.suffix == ".jsonl":
        yield from _jsonl(path, name, text_field)
    elif alone:
        yield from _pieces(path, name)
    else:
        group = name.partition("/")[0] if "/" in name else "."
        yield Document(name, path.read_bytes().decode("utf-8-sig"), group=group)


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


def _jsonl(path: Path, name: str, text_field: str) -> Iterator[Document]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise UserError(f"{name}, line {number}: not valid JSON ({error})") from None
            if not isinstance(record, dict):
                raise UserError(f"{name}, line {number}: expected an object, found {type(record).__name__}")
            yield _record(record, f"{name}#{number}", f"{name}, line {number}", text_field, name)


def _parquet(path: Path, name: str, text_field: str) -> Iterator[Document]:
    import pyarrow.parquet as pq

    table, times = pq.ParquetFile(path), dict[str, int]()
    wanted = [column for column in table.schema_arrow.names if column in (text_field, "messages", "path")]
    if not {text_field, "messages"} & set(wanted):
        raise UserError(
            f"{name}: no column '{text_field}' (data.text_field) and none named 'messages'",
            f"its columns: {', '.join(table.schema_arrow.names)}",
        )
    number = 0
    for batch in table.iter_batches(batch_size=256, columns=wanted):
        for record in batch.to_pylist():
            given = str(record.pop("path", None) or number)
            inside, own, group = f"{name}#{given}", "", name
            if "path" in wanted:  # one path for many records: told apart, or all of them would land in one split
                times[inside] = count = times.get(inside, 0) + 1
                own, group = f"{count}#" if count > 1 else "", given.partition("/")[0] if "/" in given else name
            yield _record(record, f"{own}{inside}", f"{name}, row {number}", text_field, group)
            number += 1


def _record(record: dict[str, Any], path: str, where: str, text_field: str, group: str) -> Document:
    messages, text = record.get("messages"), record.get(text_field)
    if messages is not None:
        _check_messages(messages, where)
        chat = [{"role": m["role"], "content": whole(m["content"])} for m in messages]
        return Document(path, "\n\n".join(m["content"] for m in chat), chat, group)
    if not isinstance(text, str):
        raise UserError(
            f"{where}: no text in field '{text_field}' (data.text_field) and no 'messages'",
            f"its fields: {', '.join(record) or 'none'}",
        )
    return Document(path, whole(text), group=group)


def whole(text: str) -> str:
    """Half a character (a lone surrogate of JSON's escapes) can't be written as UTF-8: it becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _check_messages(messages: Any, where: str) -> None:
    fine = isinstance(messages, list) and messages
    if not fine or not all(isinstance(m, dict) and {"role", "content"} <= set(m) for m in messages):
        raise UserError(f"{where}: 'messages' must be a list of objects with 'role' and 'content'")
    if not all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in messages):
        raise UserError(f"{where}: 'role' and 'content' of a message must be text")


def hash_of(path: str) -> str:
    """What decides a document's split and its place in a shard."""
    return hashlib.sha256(path.encode()).hexdigest()


def split(documents: list[N], validation: float, test: float) -> dict[str, list[N]]:
    """Train, validation and test by the hash of the path alone, so that a file never changes sides when others come.

    With so few documents that a split would be empty it takes one from the training documents.
    """
    parts: dict[str, list[N]] = {name: [] for name in SPLITS}
    for document in documents:
        position = int(hash_of(document.path)[:12], 16) / 16**12
        name = "test" if position < test else "validation" if position < test + validation else "train"
        parts[name].append(document)
    for name in SPLITS:
        if not parts[name]:
            parts[name].append(max(parts.values(), key=len).pop(0))
    return parts
