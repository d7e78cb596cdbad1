"""The files of a source, each read once from end to end: what it holds is hashed, what can't be read is named."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError

SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")
CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    """A readable file and its name below the source."""

    path: Path
    name: str


@dataclass
class Files:
    """What a source holds: readable files, every file's size and hash, and what was left out and why."""

    readable: list[File] = field(default_factory=list)
    described: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def inspect(source: Path) -> Files:
    """Look at every file of a source, a megabyte at a time.

    Raises:
        UserError: nothing there, or no file of a kind that is read.
    """
    found = Files()
    for path in _paths(source):
        name = path.relative_to(source).as_posix() if source.is_dir() else path.name
        name = name.encode("utf-8", "replace").decode()
        digest, size, problem = _look(path)
        found.described.append({"path": name, "bytes": size, "sha256": digest})
        if problem:
            found.unreadable.append(f"{name}: {problem}")
        else:
            found.readable.append(File(path, name))
    return found


def _paths(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"data.source '{source}': no such file or folder")
    found = sorted(path for path in source.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"data.source '{source}': no {' '.join(SUFFIXES)} file in this folder")
    return found


def _look(path: Path) -> tuple[str, int, str]:
    """SHA-256, bytes, and why it can't be read, or ""."""
    digest, size, problem = hashlib.sha256(), 0, ""
    text = path.suffix != ".parquet"
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if text and not problem:
                problem = _undecodable(decoder, chunk, size)
            size += len(chunk)
    if text and size and not problem:
        problem = _undecodable(decoder, b"", size, final=True)
    if not size:
        problem = "empty file"
    elif not text:
        problem = _no_parquet(path)
    return digest.hexdigest(), size, problem


def _undecodable(decoder: codecs.IncrementalDecoder, chunk: bytes, at: int, final: bool = False) -> str:
    if at == 0 and b"\0" in chunk[:65536]:
        return "binary, not text"
    waiting = len(decoder.getstate()[0])
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError as error:
        return f"not UTF-8 ({error.reason} at byte {at - waiting + error.start}): convert it first"
    return ""


def _no_parquet(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.ParquetFile(path).close()
    except (pa.ArrowInvalid, OSError) as error:
        return f"not a Parquet file ({str(error).splitlines()[0]})"
    return ""
