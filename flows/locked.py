"""One process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.errors import UserError


@contextmanager
def locked(path: Path, seconds: float, taken: str, hint: str) -> Iterator[None]:
    """Hold the lock at `path` inside; its folder is made where it isn't there.

    Args:
        path: of the lock's file.
        seconds: to wait for whoever holds it.
        taken: what to say if that was in vain.
        hint: what to do then.

    Raises:
        UserError: somebody else holds it.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise UserError(taken, hint) from None
    try:
        yield
    finally:
        lock.release()
