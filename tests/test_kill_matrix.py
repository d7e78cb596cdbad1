"""kill -9 at twenty random moments, chosen by the clock and by what happens to files: the end is always the same."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.killed import EVERY

pytestmark = pytest.mark.slow
SEED = 4


class Server:
    """A running `tests.killed`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def attempt(self, folder: Path, **kill: Any) -> dict[str, Any]:
        """One attempt in `folder`, killed or not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"folder": str(folder), **kill}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        said = folder / "said.txt"
        assert not answer["failed"], said.read_text()
        return answer


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all moments."""
    command = [sys.executable, "-m", "tests.killed"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


def moments(events: list[str], seconds: float) -> list[dict[str, Any]]:
    """Twenty: one before each kind of thing that happens to files, five between steps, five by the clock."""
    dice = random.Random(SEED)
    often = {kind: sum(kind in event for event in events) for kind in KINDS}
    assert all(often.values()), f"every kind happens in the run without a break: {often}"
    by_file = [{"event": kind, "nth": dice.randrange(count)} for kind, count in often.items()]
    between = [{"event": STEP, "nth": dice.randrange(22)} for _ in range(5)]
    by_clock = [{"after": dice.uniform(0.2, 1.0) * seconds} for _ in range(5)]
    return [*by_file, *between, *by_clock]


STEP = "open history.csv"
KINDS = (
    "os.mkdir checkpoint.tmp",
    "open weights.safetensors",
    "open optimizer.safetensors",
    "open progress.json",
    "os.rename checkpoint.tmp",
    "os.rmdir checkpoint-",
    "os.remove weights.safetensors",
    "open skipped.json.tmp",
    "os.rename skipped.json.tmp",
    "os.rename history.tmp",
)
"""A moment of each kind, among them between a rename and the pruning, and before, in and after the writing of what is skipped."""


def _state(work: Path) -> tuple[int, int]:
    """Step of the newest checkpoint, and steps that the history has."""
    checkpoints = [int(path.name[-8:]) for path in work.glob("checkpoint-*")]
    history = work / "history.csv"
    rows = history.read_text().splitlines()[1:] if history.exists() else []
    return max(checkpoints, default=0), len(rows)


def test_killed_at_twenty_moments(server: Server, tmp_path: Path) -> None:
    """Bit for bit the weights and counts of the run without a break, and no step before the last checkpoint is repeated.

    Every second moment is followed by another kill, wherever the second attempt then is.
    """
    straight = tmp_path / "straight"
    seconds = server.attempt(straight)["seconds"]
    events = json.loads((straight / "events.json").read_text())
    counts = json.loads((straight / "counts.json").read_text())
    assert (counts["skipped_batches"], counts["repeated_steps"]) == (2, 6 % EVERY + 12 % EVERY)
    killed = 0
    for number, moment in enumerate(moments(events, seconds)):
        folder = tmp_path / f"{number}"
        lost = 0
        for kill in [moment, {"event": STEP, "nth": number % 5}] if number % 2 else [moment]:
            hit = server.attempt(folder, **kill)["killed"]
            newest, done = _state(folder / "work")
            if not hit:  # the attempt was over before the moment came
                break
            killed += 1
            assert done - newest < 2 * EVERY, f"moment {number}: {kill}"
            lost += max(0, done - newest)
        said = (folder / "said.txt").read_text().count("\n")
        server.attempt(folder)
        if newest:
            assert f"goes on from step {newest}" in "\n".join((folder / "said.txt").read_text().splitlines()[said:])
        one, other = (place / "final.safetensors" for place in (straight, folder))
        assert one.read_bytes() == other.read_bytes(), f"moment {number}: {moment}"
        found = json.loads((folder / "counts.json").read_text())
        assert found["repeated_steps"] <= counts["repeated_steps"] + lost + 2 * EVERY
        assert {**found, "repeated_steps": 0} == {**counts, "repeated_steps": 0}
    assert killed >= 20
