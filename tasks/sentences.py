"""What the operating system refuses a stage, in a user's words."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import UserError
from tasks.ledger import budget

FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file size limit is reached",
}
DENIED = {errno.EACCES: "permission denied", errno.EPERM: "not permitted", errno.EROFS: "the file system is read-only"}


@contextmanager
def in_words(stage: str) -> Iterator[None]:
    """Turn what the operating system refuses, whichever library it reaches us through, into sentences."""
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{stage}: out of memory", _memory_hint(stage)) from error
    except Exception as error:
        sentence = _sentence(stage, error)
        if sentence is None:
            raise
        raise sentence from error


def _sentence(stage: str, error: Exception) -> UserError | None:
    """The user's words for an error of the operating system; None if it is another kind of error.

    Rust libraries (safetensors, tokenizers) pass the number on as text: `(os error 28)`.
    """
    found = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    paths = [getattr(error, name, None) for name in ("filename", "filename2")]
    where = " as ".join(str(path) for path in paths if path) or "its output"
    if number in FULL:
        hint = "make room and run again: finished stages and the last checkpoint are kept"
        return UserError(f"{stage}: cannot write {where}: {FULL[number]}", hint)
    if number in DENIED:
        return UserError(f"{stage}: cannot write {where}: {DENIED[number]}", "check owner and mode of the folder")
    text = str(error).lower()
    if isinstance(error, RuntimeError) and "alloc" in text and "memory" in text:
        return UserError(f"{stage}: out of memory ({str(error).splitlines()[0][:120]})", _memory_hint(stage))
    return None


def _memory_hint(stage: str) -> str:
    return f"lower {budget.LESS_MEMORY.get(stage, stage)}"
