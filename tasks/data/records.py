"""Rows out of files of records, one after the other: JSON Lines, a JSON list, CSV, Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.data.files import File
from tasks.data.formats import fields_of, read_fields, recognised
from tasks.data.formats.format import Format, Record

LISTS = ("messages", "conversations", "chosen", "rejected", "prompt", "completion")
"""Fields that may hold messages; in CSV, where every cell is text, as JSON."""
TEXTS = ("chosen", "rejected", "prompt", "completion")
"""Those of them that may hold text instead."""

CHUNK = 1 << 20


@dataclass(frozen=True)
class Found:
    """A row: its path within the source, where it lies for a person, its fields, its group."""

    path: str
    where: str
    fields: dict[str, Any]
    group: str


def rows(file: File, text_field: str) -> Iterator[Found]:
    """Every row of a file of records; one at a time is in memory.

    Raises:
        UserError: a row that can't be read, by file and number.
    """
    path, name = file.path, file.name
    if path.suffix == ".parquet":
        yield from _parquet(path, name, text_field)
    else:
        yield from {".jsonl": _jsonl, ".json": _json, ".csv": _csv}[path.suffix](path, name)


def recognised_as(first: Format | None, record: Record) -> Format:
    """The format of a row whose file began as `first`.

    Raises:
        UserError: it is of another format, or of none.
    """
    names, filled = set(record.fields), {name for name, value in record.fields.items() if value is not None}
    if first and first.fits(names, record.text_field) and not first.fits(filled, record.text_field):
        return first  # it has the fields, but one is null: whoever reads it says so
    found = recognised(record)
    if first and found is not first:
        raise UserError(
            f"{record.where}: the fields of format {found.name} ({fields_of(found) or record.text_field}) in a file that begins "
            f"as {first.name} ({fields_of(first) or record.text_field})",
            "one file holds one format: put these rows into a file of their own",
        )
    return found


def _jsonl(path: Path, name: str) -> Iterator[Found]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{name}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where}: not valid JSON ({_why(error)})") from None
            yield Found(f"{name}#{number}", where, _object(record, where), name)


def _object(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object, found {type(record).__name__}")
    return record


def _json(path: Path, name: str) -> Iterator[Found]:
    for number, record in enumerate(_elements(path, name), start=1):
        where = f"{name}, row {number}"
        yield Found(f"{name}#{number}", where, _object(record, where), name)


def _elements(path: Path, name: str) -> Iterator[Any]:
    """The elements of a JSON list, decoded as the file is read: what doesn't end within what was read waits for more."""
    decoder, number = json.JSONDecoder(), 1
    with path.open(encoding="utf-8-sig") as file:
        text, wanted = file.read(CHUNK).lstrip(), CHUNK
        if not text.startswith("["):
            raise UserError(f"{name}: not a list of records: a .json file begins with '['", "or name it .jsonl")
        text = text[1:].lstrip()
        while not text.startswith("]"):
            try:
                element, end = decoder.raw_decode(text)
                if end == len(text):  # a number may go on
                    raise ValueError("the list doesn't end")
            except (ValueError, RecursionError) as error:
                more = "" if isinstance(error, RecursionError) else file.read(wanted)
                if not more:
                    raise UserError(f"{name}, row {number}: not valid JSON ({_why(error)})") from None
                text, wanted = (text + more).lstrip(), wanted * 2
                continue
            yield element
            text, number, wanted = _after(text, end, file, f"{name}, row {number}"), number + 1, CHUNK
        if text[1:].strip() or file.read(CHUNK).strip():
            raise UserError(f"{name}: something follows the list of records", "a .json file is one list")


def _after(text: str, end: int, file: Any, where: str) -> str:
    """What follows an element and its comma."""
    rest = text[end:].lstrip()
    if not rest:
        rest = file.read(CHUNK).lstrip()
    if rest.startswith(","):
        return rest[1:].lstrip() or str(file.read(CHUNK)).lstrip()
    if not rest.startswith("]"):
        raise UserError(f"{where}: not valid JSON (after it, ',' or ']' is expected, found {rest[:10]!r})")
    return rest


def _csv(path: Path, name: str) -> Iterator[Found]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.reader(file, strict=True)
        number = 0
        try:
            names = next(table, [])
            if len(set(names)) < len(names):
                raise UserError(f"{name}: two columns of one name in its header: {', '.join(names)}")
            for number, cells in enumerate((row for row in table if row), start=1):
                where = f"{name}, row {number} (line {table.line_num})"
                if len(cells) != len(names):
                    raise UserError(
                        f"{where}: {len(cells)} cells, but the header has {len(names)} ({', '.join(names)})",
                        "cells are separated by commas; a cell with commas, quotes or line ends stands in double quotes",
                    )
                cells_of = {field: _cell(field, cell, where) for field, cell in zip(names, cells, strict=True)}
                yield Found(f"{name}#{number}", where, cells_of, name)
        except csv.Error as error:
            raise UserError(f"{name}, row {number + 1} (line {table.line_num}): not valid CSV ({error})") from None


def _cell(field: str, cell: str, where: str) -> Any:
    if field not in LISTS or not cell.lstrip().startswith("[{"):
        return cell
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError) as error:
        if field in TEXTS:
            return cell
        raise UserError(f"{where}, field '{field}': found messages that aren't valid JSON ({_why(error)})") from None
    return cell if field in TEXTS and not _spoken(found) else found


def _spoken(found: Any) -> bool:
    """Whether this is meant as messages, right or wrong: a question or an answer may be about any other JSON."""
    keys = [one.keys() for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return any(one & {"role", "content"} or one >= {"from", "value"} for one in keys)


def _why(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _parquet(path: Path, name: str, text_field: str) -> Iterator[Found]:
    import pyarrow.parquet as pq

    table, times = pq.ParquetFile(path), dict[str, int]()
    read = {*read_fields(text_field), "path"}
    wanted = [column for column in table.schema_arrow.names if column in read]
    columns = wanted if set(wanted) - {"path"} else None  # all of them, for an error to list
    number = 0
    for batch in table.iter_batches(batch_size=256, columns=columns):
        for record in batch.to_pylist():
            given = str(record.pop("path", None) or number)
            inside, own, group = f"{name}#{given}", "", name
            if "path" in wanted:  # one path for many records: told apart, or all of them would land in one split
                times[inside] = count = times.get(inside, 0) + 1
                own, group = f"{count}#" if count > 1 else "", given.partition("/")[0] if "/" in given else name
            number += 1
            yield Found(f"{own}{inside}", f"{name}, row {number}", record, group)
