"""The machine: what it is, and how fast it multiplies, reads memory and writes to disk; measured once, in a child.

`leanlm hardware` shows it. `python -m tasks.ledger.machine` measures and prints JSON.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.ledger import cgroup
from tasks.ledger.naming import cpu_model, slug

FOLDER = Path("hardware")
"""Where every machine that ran this project is kept, `<name>.json` each."""


@dataclass(frozen=True)
class Machine:
    """Rates of the device that models run on (the graphics card if there is one) and of the host.

    Attributes:
        gemm_flops_per_second: best matrix-product rate on the device by dtype: "float32" and "bfloat16", and "float16",
            "int8" (operations) and others where there is a rate.
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
        link_bytes_per_second: network between machines, one direction, 0: unknown.
        assumed: what about these rates is assumed, which predictions must say; "" where all are measured.
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
    assumed: str = ""


@cache
def describe() -> dict[str, Any]:
    """What the machine is: no host name, no user, no path. `name` is of its file in `hardware/`."""
    from psutil import virtual_memory

    cpu, cores, gpus = cpu_model(), usable_cores(), _gpu_names()
    return {
        "name": slug(cpu, cores, gpus),
        "cpu": cpu,
        "cores": cores,
        "memory_bytes": min(virtual_memory().total, cgroup.memory_limit() or sys.maxsize),
        "gpu": gpus,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores this process may be scheduled on, no more than its control group pays for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cgroup.cores() or cores)


def available_memory() -> int:
    """Bytes a new process can take before the system, or the control group it runs in, is out of memory."""
    from psutil import virtual_memory

    free = int(virtual_memory().available)
    limit = cgroup.memory_limit()
    return free if limit is None else min(free, max(0, limit - cgroup.memory_used()))


def room(stage: str, machine: Machine) -> tuple[int, str]:
    """Bytes there are for a stage, and whose: of a graphics card where models are trained on one, else of the host."""
    if machine.device == "cuda" and machine.memory_bytes and stage in ("pretrain", "finetune"):
        return machine.memory_bytes, "a graphics card of this machine"
    return available_memory(), "this machine"


def _gpu_names() -> list[str]:
    from tasks.ledger.energy import cards

    return [card.name for card in cards()]


def kept_at() -> Path:
    """The file of this machine."""
    return FOLDER / f"{describe()['name']}.json"


def measure(force: bool = False, path: Path | None = None) -> Machine:
    """The machine's rates: those of `measurement`.

    Raises:
        UserError: the measuring process failed.
    """
    return Machine(**measurement(force, path)["rates"])


def measurement(
    force: bool = False, path: Path | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Everything known of this machine's speed: what was measured on it before, else measured now and kept.

    Args:
        force: measure even if it was measured before.
        path: where it is kept; None: `kept_at()`.
        progress: told what is being measured.

    Returns:
        `machine` (see `describe`), `date`, `rates` (fields of `Machine`) and the tables behind them: `gemm` by dtype and
        size, `bandwidth` by memory and operation, `disk`, `gpus`, `power_source`, and the `load` meanwhile.

    Raises:
        UserError: the measuring process failed.
    """
    path = path if path is not None else kept_at()
    known = None if force else _kept(path)
    if known is not None:
        return known
    found = {
        "machine": describe(),
        "date": datetime.now(UTC).date().isoformat(),
        **_measured(progress or (lambda _: None)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return found


def _measured(progress: Callable[[str], None]) -> dict[str, Any]:
    """What the measuring process prints: a JSON object a line, `{"progress": ...}` until the last."""
    command = [sys.executable, "-m", "tasks.ledger.machine"]
    said: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()) as child:
            try:
                for line in child.stdout or ():
                    said = json.loads(line)
                    if "progress" in said:
                        progress(said["progress"])
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0 or "rates" not in said:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the machine's speed cannot be measured: {last}", "`make setup` restores the environment")
    return said


def _environment() -> dict[str, str]:
    """This process's, with the project importable from wherever it was started."""
    parts = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in parts if part)}


def _kept(path: Path) -> dict[str, Any] | None:
    """What `path` holds, if it is whole and of this machine."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if found["machine"] == describe() and _whole(found) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _whole(found: dict[str, Any]) -> bool:
    """Whether every part is there, and every rate one that can be divided by."""
    rates = Machine(**found["rates"])
    gemm = [rates.gemm_flops_per_second[name] for name in ("float32", "bfloat16")]
    others = (rates.bandwidth_bytes_per_second, rates.host_bandwidth_bytes_per_second, rates.disk_bytes_per_second)
    parts = {
        "date": str,
        "gemm": list,
        "bandwidth": dict,
        "disk": dict,
        "gpus": list,
        "power_source": dict,
        "load": dict,
    }
    return all(isinstance(found[name], kind) for name, kind in parts.items()) and all(
        math.isfinite(rate) and rate > 0 for rate in (*gemm, *others)
    )


if __name__ == "__main__":
    from tasks.ledger.rates import measured

    sys.stdout.write(json.dumps(measured()) + "\n")
