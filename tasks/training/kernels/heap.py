"""A heap that keeps what it has been given: a step frees its activations, and the next one needs as much again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""Of malloc.h in glibc."""

LARGEST = (1 << 31) - 1
"""mallopt takes an int."""


def keep() -> bool:
    """Tell glibc to take large blocks from the heap and to give none of it back; whether it could be told.

    Without it every large tensor is mapped, filled page by page and unmapped again: a tenth of a step of a small model
    on two cores. The peak stays what it is; between peaks the process holds on to it. Other allocators (musl, macOS)
    have their own ways, and stay as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    values = ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, LARGEST), (M_TOP_PAD, 64 << 20))
    done = [mallopt(name, value) for name, value in values]  # every one of them, whatever the first says
    return all(result == 1 for result in done)
