"""The machine: what it is, and how fast it multiplies, reads memory and writes to disk; measured once, in a child.

`python -m tasks.ledger.machine` measures and prints JSON.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError

PATH = Path("work/machine.json")


@dataclass(frozen=True)
class Machine:
    """Rates of the device that models run on (the graphics card if there is one) and of the host.

    Attributes:
        gemm_flops_per_second: best matrix-product rate by dtype, "float32" and "bfloat16", on the device.
        bandwidth_bytes_per_second: memory of the device, bytes read and written.
        host_bandwidth_bytes_per_second: the same of the host's memory; equal where the host is the device.
        disk_bytes_per_second: sequential write, synced.
        native_bf16: whether bfloat16 is multiplied in hardware.
        cores: cores this process may use.
        device: "cpu" or "cuda".
        device_watts: the graphics cards' power limit, 0 without one.
        busy: how loaded the machine was while it was measured.
        name: of the machine, e.g. of the file its rates are kept in.
        memory_bytes: of the device that models run on.
        watts: of the whole device at work where energy is not counted by core (an accelerator's board power), 0: unknown.
        dollars_per_hour: rent, where it is a public accelerator with a list price; None: `prices.dollars_per_hour`.
        link_bytes_per_second: network between machines, 0: unknown.
    """

    gemm_flops_per_second: dict[str, float] = field(default_factory=dict)
    bandwidth_bytes_per_second: float = 0.0
    host_bandwidth_bytes_per_second: float = 0.0
    disk_bytes_per_second: float = 0.0
    native_bf16: bool = False
    cores: int = 1
    device: str = "cpu"
    device_watts: float = 0.0
    busy: str = ""
    name: str = ""
    memory_bytes: int = 0
    watts: float = 0.0
    dollars_per_hour: float | None = None
    link_bytes_per_second: float = 0.0


@cache
def describe() -> dict[str, Any]:
    """What the machine is: no host name, no user, no path."""
    from psutil import virtual_memory

    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": min(virtual_memory().total, _cgroup_limit() or sys.maxsize),
        "gpu": _gpu_names(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores this process may be scheduled on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Bytes a new process can take before the system, or the control group it runs in, is out of memory."""
    from psutil import virtual_memory

    free = int(virtual_memory().available)
    limit = _cgroup_limit()
    return free if limit is None else min(free, max(0, limit - _cgroup_used()))


CGROUP = Path("/sys/fs/cgroup")


def _cgroup_limit() -> int | None:
    """Memory limit of this control group (v2, then v1), or None. A container sees its own group at the root."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        value = _number(CGROUP / name)
        if value is not None and value < 1 << 60:
            return value
    return None


def _cgroup_used() -> int:
    """Bytes used in this control group, without file pages that can be dropped."""
    for usage, stat, key in (
        ("memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        used = _number(CGROUP / usage)
        if used is not None:
            lines = (CGROUP / stat).read_text().splitlines()
            droppable = [int(line.split()[1]) for line in lines if line.split()[0] == key]
            return max(0, used - sum(droppable))
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _cpu_model() -> str:
    try:
        if sys.platform == "darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    from tasks.ledger.energy import cards

    return [card.name for card in cards()]


def measure(force: bool = False, path: Path = PATH) -> Machine:
    """The machine's rates: from `path` if they were measured on this machine, else measured now (about 10 s) and kept.

    Raises:
        UserError: the measuring process failed.
    """
    known = None if force else _kept(path)
    if known is not None:
        return known
    command = [sys.executable, "-m", "tasks.ledger.machine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"the machine's speed cannot be measured: {last}", "`make setup` restores the environment")
    machine = Machine(**json.loads(done.stdout))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    kept = {"machine": describe(), "rates": asdict(machine)}
    temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return machine


def _environment() -> dict[str, str]:
    """This process's, with the project importable from wherever it was started."""
    parts = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in parts if part)}


def _kept(path: Path) -> Machine | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Machine(**stored["rates"]) if stored["machine"] == describe() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    from tasks.ledger.rates import rates

    sys.stdout.write(json.dumps(asdict(rates())))
