"""How many rows for finetuning the records of a source hold, and how long they are, before the data stage has read them."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from math import ceil
from pathlib import Path

from tasks.acquire import describe, is_descriptor, place
from tasks.acquire.doctests import Doctests
from tasks.acquire.maker import Maker
from tasks.acquire.stdlib import Stdlib
from tasks.core.errors import UserError
from tasks.data import NONE, Data
from tasks.data.documents import Document, Reading
from tasks.data.files import RECORDS, File, readable
from tasks.data.formats.format import Message, Row
from tasks.data.instructions import PYTHON
from tasks.data.kinds import CHATS
from tasks.ledger.predict import constants
from tasks.ledger.predict.text import source_text

SAMPLE = 500
"""Rows of the first file that are looked at."""
GLANCE, FILES = 20, 64
"""Rows of every file of records that are looked at for their kind, and files: of more nothing is said."""
MADE: dict[type[Maker], frozenset[str]] = {Stdlib: frozenset({CHATS}), Doctests: frozenset({CHATS, "verifiable"})}
"""What is known of sources that weren't made yet."""


def rows_in(params: Data) -> int | None:
    """About how many rows the source of chats holds; None: it holds text, or nothing is known of it yet."""
    return _count(_source(params), params.text_field, params.format)


def sampled_sizes(params: Data, bytes_per_token: float) -> list[tuple[int, int]]:
    """Positions and labelled positions of the first chats, estimated from their bytes; none where there is no such file yet."""
    sizes = []
    for chat in _sample(_source(params), params.text_field, params.format):
        whole = sum(len(m["content"].encode()) for m in chat)
        said = sum(len(m["content"].encode()) for m in chat if m["role"] == "assistant")
        turns = constants.TURN_TOKENS * len(chat)
        sizes.append((ceil(whole / bytes_per_token) + turns, ceil(said / bytes_per_token) + 1))
    return sizes


def kinds_in(params: Data) -> frozenset[str] | None:
    """Kinds of rows (`tasks.data.kinds`) the source of chats has, by the first of every file; None: that isn't known yet."""
    return _kinds(_source(params), params.text_field, params.format)


def _source(params: Data) -> Path:
    # absolute, for what was found is remembered by it
    return Path(params.source if params.instructions == NONE else params.instructions).absolute()


@lru_cache(maxsize=16)
def _count(source: Path, text_field: str, wanted: str) -> int | None:
    if source.exists() and is_descriptor(source) and isinstance(describe(source), Doctests):
        return constants.DOCTESTS
    return source_text(source).documents if _sample(source, text_field, wanted) else None


@lru_cache(maxsize=16)
def _kinds(source: Path, text_field: str, wanted: str) -> frozenset[str] | None:
    try:
        if is_descriptor(source) and not place(source).exists():
            return MADE.get(type(describe(source)))
        files = readable(place(source))
        records = [path for path in files if path.suffix in RECORDS]
        if not files or len(records) > FILES:
            return None
        texts = [path.name for path in files if path.suffix not in RECORDS]
        found = {CHATS} if len(files) > 1 and any(name.endswith(PYTHON) for name in texts) else set()
        for path in records:
            documents = list(islice(Reading([File(path, path.name)], text_field, wanted), GLANCE))
            rows = [_rows_of(document) for document in documents]
            found |= {kind for row in rows for kind in row or ()}
            if not rows or (None in rows and CHATS not in found):
                return None
        return frozenset(found)
    except (UserError, OSError, ValueError):
        return None  # the stage will say what is wrong with it


def _rows_of(document: Document) -> frozenset[str] | None:
    """Kinds of rows a document gives; None: its neighbours may be Python, it isn't."""
    if document.rows is not None:
        return frozenset(document.rows)
    if document.path.endswith(PYTHON):
        return frozenset({CHATS})
    return frozenset() if document.path.rpartition("#")[2].isdecimal() else None  # a number: no column of paths


@lru_cache(maxsize=16)
def _sample(source: Path, text_field: str, wanted: str) -> tuple[tuple[Message, ...], ...]:
    """The conversations of the first rows of the first file of records: a pair's better answer, a prompt alone without one."""
    try:
        first = readable(place(source))[0]
        if first.suffix not in RECORDS:
            return ()
        documents = iter(Reading([File(first, first.name)], text_field, wanted))
        found = list[dict[str, Row]]()
        for document in islice(documents, SAMPLE):
            if not document.rows:
                break
            found.append(document.rows)
    except (UserError, OSError, ValueError, IndexError):
        return ()  # the stage will say what is wrong with it
    chats = []
    for rows in found:
        row = next(iter(rows.values()))
        said = row.get("chosen") or row.get("completion") or []
        chats.append(tuple(row["messages"] if "messages" in row else row["prompt"] + said))
    return tuple(chats)
