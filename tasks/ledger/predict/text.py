"""How much text there is before any stage has read it."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tasks.acquire import describe, is_descriptor, place
from tasks.acquire.stdlib import Stdlib
from tasks.core.errors import UserError
from tasks.data.documents import PIECE
from tasks.data.files import ALONE, RECORDS, SUFFIXES, readable
from tasks.ledger.predict import constants

FETCHED = "`leanlm run` fetches it when the first stage that reads it runs"


@dataclass(frozen=True)
class Text:
    """How much text there is: bytes, and documents they are cut into."""

    bytes: int
    documents: int

    def __add__(self, other: Text) -> Text:
        """Both together."""
        return Text(self.bytes + other.bytes, self.documents + other.documents)

    def first(self, count: int | None) -> Text:
        """`count` documents of average length, or all."""
        if count is None or count >= self.documents:
            return self
        return Text(self.bytes * count // self.documents, count)


def source_text(source: Path) -> Text:
    """The text in `data.source`; of the interpreter's standard library where that has not been made a file yet.

    Raises:
        UserError: there is no such file or folder, so nothing can be known about it.
    """
    folder = place(source)
    if folder.exists():
        files = readable(folder)
        if not files:
            raise UserError(f"data.source '{source}': no {' or '.join(SUFFIXES + ALONE)} file in that folder")
        return sum((_text(path, alone=len(files) == 1) for path in files), Text(0, 0))
    if is_descriptor(source) and isinstance(describe(source), Stdlib):
        return _stdlib_text()
    hint = (
        FETCHED if is_descriptor(source) else "name a file or folder that is there, or a .yaml such as data/stdlib.yaml"
    )
    raise UserError(f"data.source '{source}': not there yet, so its size is not known", hint)


def acquiring_seconds(*sources: Path) -> float:
    """Seconds it takes to make raw inputs that aren't there yet; what a network brings can't be told."""
    missing = [path for path in sorted({*sources}) if is_descriptor(path) and not place(path).exists()]
    return sum(constants.ACQUIRE_SECONDS.get(type(describe(path)).__name__.lower(), 0.0) for path in missing)


def _text(path: Path, alone: bool) -> Text:
    size = path.stat().st_size
    if path.suffix == ".parquet":
        return _parquet(path, size)
    if path.suffix in RECORDS:  # a row ends in a brace or a line end
        with path.open("rb") as file:
            start = file.read(1 << 20)
        ends = start.count(b"},") if path.suffix == ".json" else start.count(b"\n")
        return Text(size, max(1, size * ends // max(1, len(start))))
    return Text(size, max(1, size // PIECE) if alone else 1)


def _parquet(path: Path, size: int) -> Text:
    """From the footer: rows, and bytes before compression."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        meta = pq.ParquetFile(path).metadata
    except (OSError, pa.ArrowInvalid):
        return Text(size, 1)
    groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
    plain = sum(group.column(column).total_uncompressed_size for group in groups for column in range(meta.num_columns))
    return Text(plain, max(1, meta.num_rows))


@cache
def _stdlib_text() -> Text:
    """The `.py` files that `tasks.acquire.stdlib` takes, without walking into installed packages."""
    sizes, foreign = [], {"site-packages", "dist-packages", "__pycache__"}
    for folder, folders, names in os.walk(sysconfig.get_paths()["stdlib"]):
        folders[:] = [name for name in folders if name not in foreign]
        sizes += [(Path(folder) / name).stat().st_size for name in names if name.endswith(".py")]
    return Text(sum(sizes), len(sizes))
