"""The files of a source, each read once from end to end: what it holds is hashed, what can't be read is named."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError

THERE = "name a file, a folder with at least one file that is read, or a .yaml such as data/stdlib.yaml"
SUFFIXES = (".txt", ".md", ".py", ".jsonl", ".parquet")
RECORDS = (".jsonl", ".parquet", ".json", ".csv")
"""Files of records."""
ALONE = (".json", ".csv")
"""Files that are read where they are the source, or in a folder without any of `SUFFIXES`: beside others they are
settings and notes more often than text."""
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


def inspect(source: Path, name: str = "data.source") -> Files:
    """Look at every file of a source, a megabyte at a time.

    Args:
        source: file or folder.
        name: the parameter that names it.

    Raises:
        UserError: nothing there, or no file of a kind that is read.
    """
    found = Files()
    if not source.exists():
        raise UserError(f"{name} '{source}': no such file or folder", THERE)
    if not (paths := readable(source)):
        raise UserError(f"{name} '{source}': no {' '.join(SUFFIXES + ALONE)} file in this folder", THERE)
    for path in paths:
        below = path.relative_to(source).as_posix() if source.is_dir() else path.name
        below = below.encode("utf-8", "replace").decode()
        digest, size, problem = _look(path)
        found.described.append({"path": below, "bytes": size, "sha256": digest})
        if problem:
            found.unreadable.append(f"{below}: {problem}")
        else:
            found.readable.append(File(path, below))
    return found


def readable(source: Path) -> list[Path]:
    """The files of a source that are of a kind that is read; a lone file whatever its name."""
    if source.is_file():
        return [source]
    files = _below(source, SUFFIXES + ALONE)
    return [path for path in files if path.suffix in SUFFIXES] or files


def passed_over(source: Path) -> list[Path]:
    """The files of `ALONE` in a folder that aren't read because others are there."""
    return sorted({*_below(source, ALONE)} - {*readable(source)}) if source.is_dir() else []


def _below(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.suffix in suffixes and path.is_file())


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
