"""Run a model's Python and see whether it passes its tests: in a process that can't write, connect, fork or last.

What is kept out, in a process of its own with an empty environment, an empty folder and the standard library alone:

- time (processor time by the kernel, elapsed time by us), memory, files of any size, more than 32 open files;
- on Linux with libseccomp: every system call but the few in `jail.ALLOWED`, so no socket (loopback neither), no other
  process, no signal, no file opened for writing anywhere;
- elsewhere what a program would do of all this by Python's own means is refused by the interpreter's audit hook, and modules
  that would do it natively aren't imported: enough for mistakes, no wall against an attack. `Verdict.guard` says which.

What is not kept out: reading files this user may read (nothing read can leave but the 128 bytes of a verdict), and cheating:
code in the same interpreter as its tests could find what counts as passing.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

JAIL = Path(__file__).with_name("jail.py")
SAID = 128
"""Bytes of a verdict that are read."""


@dataclass(frozen=True)
class Verdict:
    """How a program ended.

    Attributes:
        passed: it ran, and so did every test.
        why: the error's name, "time", "killed" (memory or processor time) or ""; for a person.
        guard: what confined it: "kernel" or "interpreter"; "" if it died before.
    """

    passed: bool
    why: str = ""
    guard: str = ""


def passes(
    code: str, tests: str, *, seconds: int = 2, elapsed: float = 10.0, memory: int = 512 << 20, kernel: bool = True
) -> Verdict:
    """Run `code`, then `tests`, in a process of their own.

    Args:
        code: a model's program.
        tests: statements that raise where it is wrong.
        seconds: of processor time.
        elapsed: seconds on the clock; more than `seconds`, so that a busy machine doesn't decide.
        memory: bytes of address space.
        kernel: whether the kernel may confine it; without, the interpreter alone does.
    """
    return _ended(code, tests, seconds, elapsed, memory, kernel and _confined())


@cache
def _confined() -> bool:
    """Whether the kernel can confine a program here; tried once."""
    return _ended("", "", 2, 10.0, 512 << 20, True).guard == "kernel"


def _ended(code: str, tests: str, seconds: int, elapsed: float, memory: int, kernel: bool) -> Verdict:
    password = secrets.token_hex(16)
    asked = {"code": code, "tests": tests, "password": password, "seconds": seconds, "memory": memory, "kernel": kernel}
    ours, theirs = os.pipe()
    with tempfile.TemporaryDirectory() as folder, os.fdopen(ours, "rb", buffering=0) as pipe:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(JAIL), str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            pass_fds=[theirs],
            start_new_session=True,
        )
        os.close(theirs)
        try:
            with suppress(BrokenPipeError), process.stdin as stdin:  # type: ignore[union-attr]
                stdin.write(json.dumps(asked).encode() + b"\n")
            said, late = _listen(pipe.fileno(), elapsed)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    guard, _, ended = said.decode(errors="replace").partition("\n")
    if late:
        return Verdict(False, "time", guard)
    return Verdict(ended == password, "" if ended == password else ended or "killed", guard)


def _listen(pipe: int, elapsed: float) -> tuple[bytes, bool]:
    """What is said until the other end closes, or enough is said; and whether time ran out."""
    until, said = time.monotonic() + elapsed, b""
    while len(said) < SAID:
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            return said, True
        part = os.read(pipe, SAID - len(said))
        if not part:
            break
        said += part
    return said, False
