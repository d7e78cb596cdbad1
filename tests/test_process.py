"""What a process that computes is told before its libraries are loaded."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tasks.core.process import COMPUTING, READ_AT_START

SHOWN = """
import os, sys
from tasks.core.process import prepare
print("begun", os.getpid())
prepare()
print("ready", os.getpid(), os.environ["GLIBC_TUNABLES"], *sys.argv[1:])
"""
STARTS = 2 if sys.platform.startswith("linux") else 1
"""Where no glibc is, nothing starts again."""


def _run(code: str, *arguments: str, **own: str) -> tuple[list[str], int]:
    """Lines of a program in an environment without what the test runner was told, and its id."""
    environment = {name: value for name, value in os.environ.items() if name not in COMPUTING} | own
    command = [sys.executable, "-u", "-c", code, *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        lines = process.communicate(timeout=120)[0].splitlines()
    assert process.returncode == 0
    return lines, process.pid


def test_the_program_starts_once_more_in_the_same_process() -> None:
    """With the same arguments, and only once."""
    lines, pid = _run(SHOWN, "a b", "-S")
    assert lines == [f"begun {pid}"] * STARTS + [f"ready {pid} {COMPUTING[READ_AT_START]} a b -S"]


def test_what_the_user_has_set_stays() -> None:
    """And then nothing starts again."""
    lines, pid = _run(SHOWN, GLIBC_TUNABLES="glibc.malloc.check=0")
    assert lines == [f"begun {pid}", f"ready {pid} glibc.malloc.check=0"]


@pytest.mark.slow
@pytest.mark.skipif(STARTS == 1, reason="another allocator, which these tunables don't concern")
def test_a_prepared_process_trains_in_less_memory() -> None:
    """What checkpointing frees is used again: three steps hold at least an eighth less (a quarter when it was written)."""
    command = [sys.executable, "-m", "benchmarks.memory", "--parameters", "5000000", "--child", "full checkpointing"]
    peaks = []
    for tunables in ("glibc.malloc.check=0", COMPUTING[READ_AT_START]):
        environment = os.environ | {"GLIBC_TUNABLES": tunables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < 7 / 8 * peaks[0]
