"""A child process: what it says is shown and logged as it comes, and it ends when its parent is interrupted."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from flows.terminated import Terminated

GRACE_SECONDS = 10.0


def run(command: list[str], log: Path, note: Path, environment: Mapping[str, str], folder: Path | None = None) -> int:
    """Run `command`, in `folder` where one is given, and return its exit code (negative: the signal that ended it).

    Its stderr is shown live and logged; its stdout is only logged. On a terminal it gets a pseudo-terminal, so that
    progress bars work. Whatever interrupts this function ends the child and everything the child started; while it
    runs, `note` says which process it is, for `stop_orphan` after a kill.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file, _shown(file.fileno()) as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=stderr,
            env={**os.environ, **environment},
            cwd=folder,
        )
        try:
            note.write_text(json.dumps([process.pid, psutil.Process(process.pid).create_time()]), encoding="utf-8")
            return process.wait()
        except KeyboardInterrupt as error:
            # after Ctrl-C the terminal has told the child as well: let it put its things away
            if sys.stdin.isatty() and not isinstance(error, Terminated):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
            raise
        finally:
            if process.poll() is None:
                stop(process.pid)
                process.wait()
            note.unlink(missing_ok=True)


def stop_orphan(note: Path) -> bool:
    """End the child of a parent that was killed; whether there was one."""
    try:
        pid, created = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
    found = is_alive(pid, created)
    if found:
        stop(pid)
    note.unlink()
    return found


def is_alive(pid: int, created: float) -> bool:
    """Whether process `pid` runs and is the one born at `created` (seconds since 1970): a pid may be used again."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(pid: int) -> None:
    """End a process and all its descendants, politely, then by force. One that's gone already is fine.

    The descendants go first: a parent that waits for them then ends by itself and tidies up.
    """
    try:
        parent = psutil.Process(pid)
        descendants = parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    _terminate(descendants)
    if descendants:
        _running_after([parent], 2)
    _terminate([parent])


def _terminate(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in _running_after(processes, GRACE_SECONDS):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _running_after(processes, GRACE_SECONDS)


def _running_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all have ended, at most `seconds`; those that haven't. One its parent didn't wait for has ended, too."""
    deadline = time.monotonic() + seconds
    while True:
        running = [process for process in processes if is_alive(process.pid, process.create_time())]
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(0.02)


@contextlib.contextmanager
def _shown(log: int) -> Iterator[int]:
    """A descriptor to write to: what arrives there is shown on stderr and written to the descriptor `log`."""
    reader, writer = _terminal() if sys.stderr.isatty() else os.pipe()
    copier = threading.Thread(target=_copy, args=(reader, log), daemon=True)
    copier.start()
    try:
        yield writer
    finally:
        os.close(writer)
        copier.join(GRACE_SECONDS)
        if not copier.is_alive():
            os.close(reader)


def _terminal() -> tuple[int, int]:
    """A pseudo-terminal of the size of ours that passes bytes through unchanged."""
    import termios
    import tty

    reader, writer = os.openpty()
    tty.setraw(writer)
    termios.tcsetwinsize(writer, termios.tcgetwinsize(sys.stderr.fileno()))
    return reader, writer


def _copy(reader: int, log: int) -> None:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    while True:
        try:
            data = os.read(reader, 65536)
        except OSError:  # a pseudo-terminal whose last writer is gone
            return
        if not data:
            return
        with contextlib.suppress(OSError, ValueError):  # a closed terminal must not stop the child
            sys.stderr.write(decode(data))
            sys.stderr.flush()
        os.write(log, data)
