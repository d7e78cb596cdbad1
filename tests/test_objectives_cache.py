"""What a teacher said, on disk: whole or not there, whatever interrupted it; about one teacher and no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from tasks.objectives.distillation import _packed, _unpacked
from tasks.objectives.parts.cache import Cache, keys_of

ABOUT = {"top_k": 3}
ROWS = {f"key{number}": bytes([number]) * (10 + number) for number in range(6)}


def opened(folder: Path, about: dict[str, Any] | None = None, most: int = 1 << 20) -> Cache:
    """The cache of a folder."""
    return Cache(folder, about or ABOUT, most)


def held(cache: Cache) -> dict[str, bytes]:
    """What it gives for the keys of `ROWS`."""
    found = {key: cache.get(key) for key in ROWS}
    return {key: bytes(value) for key, value in found.items() if value is not None}


def filled(folder: Path) -> Cache:
    """Three writes of two rows."""
    cache, rows = opened(folder), list(ROWS.items())
    for at in range(0, 6, 2):
        cache.put(dict(rows[at : at + 2]))
    return cache


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    """At once and by the next process, byte for byte; another key is not there; the size is that of the files."""
    assert held(filled(tmp_path)) == ROWS
    again = opened(tmp_path)
    assert held(again) == ROWS
    assert again.get("another") is None
    assert again.size == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["said.bin", "index.jsonl"])
def test_a_write_cut_anywhere_is_forgotten_whole(tmp_path: Path, name: str) -> None:
    """Either file cut at any byte: only whole writes are found, each unharmed, and writing goes on behind them."""
    filled(tmp_path / "whole")
    files = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    writes = [dict(list(ROWS.items())[: 2 * count]) for count in range(4)]
    for length in range(len(files[name]) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        for other, content in files.items():
            (folder / other).write_bytes(content[:length] if other == name else content)
        cut = opened(folder)
        assert held(cut) in writes
        cut.put({"key5": ROWS["key5"]})
        assert held(opened(folder))["key5"] == ROWS["key5"]
        assert all(held(opened(folder))[key] == ROWS[key] for key in held(cut))


def test_damaged_bytes_are_not_read(tmp_path: Path) -> None:
    """A row whose bytes changed on the disk is not there; the others are; it can be written again."""
    filled(tmp_path)
    content = bytearray((tmp_path / "said.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "said.bin").write_bytes(content)
    cache = opened(tmp_path)
    assert held(cache) == {key: row for key, row in ROWS.items() if key != "key0"}
    cache.put({"key0": ROWS["key0"]})
    assert held(opened(tmp_path)) == ROWS


def test_what_was_said_about_something_else_is_dropped(tmp_path: Path) -> None:
    """Another temperature, top_k or vocabulary: the cache begins empty."""
    filled(tmp_path)
    assert len(opened(tmp_path, {"top_k": 4})) == 0
    assert len(opened(tmp_path)) == 0


def test_a_full_cache_stays_full(tmp_path: Path) -> None:
    """What would pass the limit is not kept, nor is anything after it, also by the next process; the limit holds."""
    room = filled(tmp_path / "a").size
    cache = opened(tmp_path / "b", most=room)
    for key, row in ROWS.items():
        cache.put({key: row})
    kept = held(cache)
    assert 0 < len(kept) < len(ROWS)
    assert cache.size <= room
    again = opened(tmp_path / "b", most=room)
    again.put({"small": b"x"})
    assert again.get("small") is None
    assert held(again) == kept


WRITER = """
import sys
from pathlib import Path
from tasks.objectives.parts.cache import Cache
cache = Cache(Path(sys.argv[1]), {"top_k": 3}, 1 << 40)
print("ready", flush=True)
for number in range(10**9):
    cache.put({f"{number}.{row}": bytes([number % 256]) * 200_000 for row in range(3)})
"""


@pytest.mark.parametrize("wait", [1, 20])
def test_killed_while_writing(tmp_path: Path, wait: int) -> None:
    """SIGKILL somewhere in a write: what is found afterwards is whole, and all rows of a write or none are there."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path.cwd())
    assert process.stdout is not None
    process.stdout.readline()
    while not (tmp_path / "said.bin").stat().st_size > wait * 600_000:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = opened(tmp_path, most=1 << 40)
    assert len(cache) >= 3
    for number in range(len(cache) // 3):
        for row in range(3):
            assert bytes(cache.get(f"{number}.{row}")) == bytes([number % 256]) * 200_000
    assert len(cache) % 3 == 0


def test_keys_are_the_text_a_token_sees() -> None:
    """The same ids have the same key in any batch; other ids or borders between documents another; numbers don't matter."""
    import torch

    ids = torch.arange(12).reshape(2, 6)
    first, second = keys_of(ids)
    assert first != second
    assert keys_of(ids.flip(0)) == [second, first]
    one, other = torch.tensor([[0, 0, 0, 1, 1, 1]]), torch.tensor([[7, 7, 7, 9, 9, 9]])
    assert keys_of(ids[:1], one) == keys_of(ids[:1], other)
    assert keys_of(ids[:1], one) != keys_of(ids[:1], torch.tensor([[0, 0, 1, 1, 1, 1]]))
    assert keys_of(ids[:1], one) != keys_of(ids[:1])


@pytest.mark.parametrize(("top_k", "spoken"), [(3, 4), (7, 7)])
def test_a_row_comes_back_as_it_went(top_k: int, spoken: int) -> None:
    """Float32 and ids, bit for bit, with and without what all others hold."""
    import torch

    likely, ids = torch.randn(5, spoken), torch.randint(0, 150_000, (5, top_k))
    back = _unpacked(_packed(likely, ids), 5, top_k)
    assert back[0].equal(likely)
    assert back[1].equal(ids)


def test_the_checksum_is_of_the_row(tmp_path: Path) -> None:
    """The index holds size and crc32 of every row, in the order of the bytes."""
    filled(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    rows = {key: value for line in lines[1:] for key, value in line["rows"].items()}
    assert rows == {key: [len(row), zlib.crc32(row)] for key, row in ROWS.items()}
