"""What a teacher has said, kept on disk by the text it was asked about: a killed run or a second epoch asks nobody again.

Two files: `said.bin`, arrays one after the other, memory-mapped, and `index.jsonl`, a line for every write, appended after
its bytes are there. A line that is torn, and bytes no line speaks of, were interrupted: both are cut off when the cache is
opened. Bytes carry a checksum, for disks that lose power.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Cache:
    """Byte strings by key, appended, never changed.

    Args:
        folder: of this cache alone; made if it isn't there.
        about: what the content depends on; what was written about something else is dropped.
        most: bytes of both files together; what would pass them is not kept, and nothing after it.

    Attributes:
        size: bytes of both files.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], most: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._data, self._index, self._most = folder / "said.bin", folder / "index.jsonl", most
        self._places: dict[str, tuple[int, int, int]] = {}
        self._end, self._full = 0, False
        self._data.touch()
        self._index.touch()
        self._open({"about": dict(about)})

    @property
    def size(self) -> int:
        """Bytes of both files."""
        return self._end + self._index.stat().st_size

    def __len__(self) -> int:
        """Keys it holds."""
        return len(self._places)

    def get(self, key: str) -> Any:
        """The bytes of `key` as a read-only array, memory-mapped; None where there are none, or damaged ones."""
        import numpy as np

        if key not in self._places:
            return None
        start, size, checksum = self._places[key]
        found: Any = np.memmap(self._data, dtype=np.uint8, mode="r", offset=start, shape=(size,))
        if zlib.crc32(found) == checksum:
            return found
        del self._places[key]
        return None

    def put(self, rows: Mapping[str, bytes]) -> None:
        """Keep `rows`, all of them or, after an interruption or past the limit, none."""
        if self._full or not rows:
            return
        entry = {"start": self._end, "rows": {key: [len(row), zlib.crc32(row)] for key, row in rows.items()}}
        size, line = sum(map(len, rows.values())), json.dumps(entry) + "\n"
        if self.size + size + len(line) > self._most:
            self._append({"full": True})
            return
        with self._data.open("ab") as file:
            for row in rows.values():
                file.write(row)
        self._append(entry)

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._index.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self._take(entry)

    def _take(self, entry: Mapping[str, Any]) -> None:
        self._full = self._full or "full" in entry
        for key, (size, checksum) in entry.get("rows", {}).items():
            self._places[key] = (self._end, size, checksum)
            self._end += size

    def _open(self, header: Mapping[str, Any]) -> None:
        """Read the index up to the first line that is torn or speaks of bytes that aren't there, and cut off the rest."""
        lines = self._index.read_bytes().splitlines(keepends=True)
        if _parsed(lines[0] if lines else b"") != header:
            _cut(self._index, 0)
            _cut(self._data, 0)
            self._append(header)
            return
        good, there = len(lines[0]), self._data.stat().st_size
        for line in lines[1:]:
            entry = _parsed(line)
            if entry is None or self._end + _size(entry) > there:
                break
            self._take(entry)
            good += len(line)
        _cut(self._index, good)
        _cut(self._data, self._end)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A whole line's object; None for one that was interrupted."""
    if not line.endswith(b"\n"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _size(entry: Mapping[str, Any]) -> int:
    return sum(size for size, _ in entry.get("rows", {}).values())


def _cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def keys_of(inputs: Any, documents: Any = None) -> Sequence[str]:
    """A key for every row of ids (B, T), and of the borders between documents (B, T) where a token sees its own alone."""
    import hashlib

    import torch

    parts = [inputs.cpu().to(torch.int64)]
    if documents is not None:
        parts.append((documents[:, 1:] != documents[:, :-1]).cpu().to(torch.int64))
    rows = torch.cat(parts, 1).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows]
