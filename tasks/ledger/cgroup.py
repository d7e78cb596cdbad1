"""What the control group of this process may use (Linux, v2 and v1). A container sees its own group at the root."""

from __future__ import annotations

import math
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def memory_limit() -> int | None:
    """Bytes, or None where there is no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        value = _number(ROOT / name)
        if value is not None and value < 1 << 60:
            return value
    return None


def memory_used() -> int:
    """Bytes, without file pages that can be dropped."""
    for usage, stat, key in (
        ("memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        used = _number(ROOT / usage)
        if used is not None:
            lines = (ROOT / stat).read_text().splitlines()
            droppable = [int(line.split()[1]) for line in lines if line.split()[0] == key]
            return max(0, used - sum(droppable))
    return 0


def cores() -> int | None:
    """Whole cores' worth of time it may use, rounded up; None where there is no limit."""
    try:
        quota, period = (ROOT / "cpu.max").read_text().split()
    except (OSError, ValueError):
        quota, period = (str(_number(ROOT / "cpu" / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
