"""What the living children of this process have used so far, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from psutil import Error, Process

TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Living:
    """All living descendants together.

    Attributes:
        cpu: processor seconds, user and system, of them and of the children they have reaped themselves.
        resident: bytes of their resident sets; pages they share are counted for each.
    """

    cpu: float = 0.0
    resident: int = 0


def living() -> Living:
    """Look at every descendant. One that ends meanwhile, or that may not be looked at, counts for nothing.

    What a child has used is reaped with it: what it is told here then comes out of `getrusage`, and never out of both.
    """
    if _childless():
        return Living()
    cpu, resident = 0.0, 0
    try:
        descendants = Process().children(recursive=True)
    except Error:
        return Living()
    for process in descendants:
        try:
            with process.oneshot():
                times, held = process.cpu_times(), process.memory_info().rss
        except Error:
            continue
        cpu += times.user + times.system + getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        resident += held
    return Living(cpu, resident)


def _childless() -> bool:
    """Whether the kernel says so at once: a look at every process of the machine takes milliseconds."""
    try:
        return not any((thread / "children").read_bytes().strip() for thread in TASKS.iterdir())
    except OSError:
        return False
