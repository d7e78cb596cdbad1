"""What a process that computes must be told before its libraries are loaded; its children inherit it."""

from __future__ import annotations

import os
import sys

COMPUTING = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # idle threads that spin for long make two busy processes several times slower each (measured in LOG.md)
    "GOMP_SPINCOUNT": "10000",
    # torch asks for aligned memory, glibc splits the rest off and keeps it aside for small objects, and what is freed
    # between such splinters is too small by a few bytes for the next tensor of the same size (measured in LOG.md)
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}
"""Variable -> value, where the user has set none."""
READ_AT_START = "GLIBC_TUNABLES"


def prepare() -> None:
    """Set `COMPUTING`; to be called first, by a program's own `if __name__ == "__main__"`.

    glibc reads its tunables when a program starts and never again. So where they were missing the program is started once
    more in this same process (execv keeps its id and its open files); other C libraries don't know them.
    """
    missing = {name: value for name, value in COMPUTING.items() if name not in os.environ}
    os.environ.update(missing)
    if READ_AT_START in missing and sys.platform.startswith("linux"):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
