"""Measures the machine's rates with torch; runs in the child process of `tasks.ledger.machine` and nowhere else."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from tasks.ledger.energy import cards
from tasks.ledger.machine import Machine, available_memory, describe, usable_cores
from tasks.models.device import best_device, native_bf16

SQUARES = (256, 512, 1024, 2048, 4096)
"""m = k = n."""

SKINNY = ((4096, 256, 1024), (4096, 1024, 256), (16, 1024, 4096), (1, 4096, 4096))
"""m, k, n: a small model's layers over a batch of tokens, a few tokens at once, and one token."""

LARGE = ((8192, 8192, 8192),)
"""What it takes to fill a graphics card."""

DTYPES = ("float32", "bfloat16", "float16", "int8")
"""int8 is `torch._int_mm`, which sums in int32."""

SECONDS_EACH = 0.15
"""Longest time spent on one operation, after a warm-up and the repeats it takes at least."""

SLOWEST = 1.0
"""A product that would take more seconds than this, by the rate of the ones before, is left out."""

DISK_BYTES = 128 << 20


def measured() -> dict[str, Any]:
    """Measure everything: about 15 s on two cores. See `tasks.ledger.machine.measurement` for the parts."""
    torch.set_grad_enabled(False)
    device = best_device()
    before = _processor_times()
    rows = [row for dtype in DTYPES for row in products(device, dtype)]
    _say("memory and disk")
    memory = {each: bandwidth(each) for each in dict.fromkeys((device, "cpu"))}
    disk = disk_rates()
    load = _load(before)
    machine = Machine(
        gemm_flops_per_second=best(rows),
        bandwidth_bytes_per_second=max(memory[device].values()),
        host_bandwidth_bytes_per_second=max(memory["cpu"].values()),
        disk_bytes_per_second=disk["write_bytes_per_second"],
        native_bf16=native_bf16(),
        cores=usable_cores(),
        device=device,
        device_watts=sum(card.watts_limit for card in cards()) if device == "cuda" else 0.0,
        busy=_busy(load),
        name=describe()["name"],
        memory_bytes=min((gpu["memory_bytes"] for gpu in _gpus()), default=describe()["memory_bytes"]),
    )
    tables = {"gemm": rows, "bandwidth": memory, "disk": disk, "gpus": _gpus()}
    return {"rates": asdict(machine), **tables, "power_source": power_source(), "load": load}


def best(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The highest FLOP/s of each dtype that could be multiplied at all."""
    known = [row for row in rows if row["flops_per_second"] is not None]
    return {
        dtype: max(row["flops_per_second"] for row in known if row["dtype"] == dtype)
        for dtype in dict.fromkeys(row["dtype"] for row in known)
    }


def products(device: str, dtype: str) -> list[dict[str, Any]]:
    """A row per shape, small ones first: `dtype, m, k, n, seconds, flops_per_second`, or null and the `reason`."""
    rows: list[dict[str, Any]] = []
    shapes = [(size, size, size) for size in SQUARES] + list(LARGE if device == "cuda" else ())
    for m, k, n in sorted((*shapes, *SKINNY), key=lambda shape: shape[0] * shape[1] * shape[2]):
        _say(f"{dtype} {m} x {k} x {n}")
        work = 2 * m * k * n
        expected = work / max(best(rows).values(), default=float("inf"))
        row = {"dtype": dtype, "m": m, "k": k, "n": n, "seconds": None, "flops_per_second": None}
        if expected > SLOWEST:
            rows.append({**row, "reason": f"left out: about {expected:.2g} s each at the rate of the others"})
            continue
        try:
            seconds = _fastest(_product(device, dtype, m, k, n), device)
        except RuntimeError as error:
            rows.append({**row, "reason": str(error).splitlines()[0][:120]})
            continue
        rows.append({**row, "seconds": seconds, "flops_per_second": work / seconds})
    return rows


def _product(device: str, dtype: str, m: int, k: int, n: int) -> Callable[[], Any]:
    if dtype == "int8":
        left, right = (torch.randint(-128, 128, shape, dtype=torch.int8, device=device) for shape in ((m, k), (k, n)))
        return partial(torch._int_mm, left, right)
    kind = getattr(torch, dtype)
    return partial(torch.mm, torch.randn(m, k, device=device, dtype=kind), torch.randn(k, n, device=device, dtype=kind))


def bandwidth(device: str) -> dict[str, float]:
    """Bytes per second of a copy, a triad (a = a + 2 b) and a sum over arrays far larger than the caches."""
    elements = _array_bytes(device) // 4
    a, b = torch.zeros(elements, device=device), torch.ones(elements, device=device)
    operations: dict[str, tuple[int, Callable[[], Any]]] = {
        "copy": (2, lambda: a.copy_(b)),
        "triad": (3, lambda: a.add_(b, alpha=2.0)),
        "read": (1, lambda: a.sum()),
    }
    return {
        name: arrays * elements * 4 / _fastest(operation, device) for name, (arrays, operation) in operations.items()
    }


def _array_bytes(device: str) -> int:
    """Four times the last cache, at least 128 MiB, at most a tenth of the free memory."""
    if device != "cpu":
        return 1 << 30
    caches = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    last = max((int(size.rstrip("KM")) << (20 if size.endswith("M") else 10) for size in caches), default=32 << 20)
    return min(max(4 * last, 128 << 20), available_memory() // 10, 1 << 30)


def disk_rates() -> dict[str, Any]:
    """Bytes per second written to a synced file where the stages write, and read back without the system's cache."""
    folder = Path("work")
    folder.mkdir(exist_ok=True)
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        start = time.perf_counter()
        for _ in range(DISK_BYTES >> 20):
            file.write(block)
        os.fsync(file.fileno())
        write = DISK_BYTES / (time.perf_counter() - start)
        if not hasattr(os, "posix_fadvise"):
            reason = "this system can't be told to forget a file it has cached"
            return {"write_bytes_per_second": write, "read_bytes_per_second": None, "reason": reason}
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(1 << 20):
            pass
        return {
            "write_bytes_per_second": write,
            "read_bytes_per_second": DISK_BYTES / (time.perf_counter() - start),
        }


def _fastest(operation: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest repeat after one warm-up: at least three, or two long ones, for `SECONDS_EACH` in all."""
    synchronize: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None
    operation()
    synchronize()
    times: list[float] = []
    while len(times) < (2 if sum(times) > 2 * SECONDS_EACH else 3) or sum(times) < SECONDS_EACH:
        start = time.perf_counter()
        operation()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _gpus() -> list[dict[str, Any]]:
    """Name, memory and power limit of every graphics card torch sees; the limit is null where NVML doesn't say."""
    limits = {card.name: card.watts_limit for card in cards()}
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {"name": each.name, "memory_bytes": each.total_memory, "watts_limit": limits.get(each.name)} for each in found
    ]


def power_source() -> dict[str, Any]:
    """`source`: "mains", "battery", or null and the `reason`; how much charge was left."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None:
        return {
            "source": None,
            "reason": "the system reports no battery: mains, unless this is a virtual machine on a laptop",
        }
    if battery.power_plugged is None:
        return {"source": None, "reason": "the system has a battery and doesn't say whether it is plugged in"}
    return {"source": "mains" if battery.power_plugged else "battery", "battery_percent": battery.percent}


def _say(what: str) -> None:
    """A line for the parent process."""
    sys.stdout.write(json.dumps({"progress": what}) + "\n")
    sys.stdout.flush()


def _processor_times() -> tuple[float, float, float]:
    """Busy seconds of all cores, seconds stolen by the hypervisor, processor seconds of this process."""
    times = psutil.cpu_times()
    own = psutil.Process().cpu_times()
    return times.user + times.system, getattr(times, "steal", 0.0), own.user + own.system


def _load(before: tuple[float, float, float]) -> dict[str, float]:
    """Processor seconds that this, other processes and the hypervisor's other guests have had since `before`."""
    busy, steal, own = (after - start for after, start in zip(_processor_times(), before, strict=True))
    return {"own_seconds": own, "others_seconds": max(0.0, busy - own), "stolen_seconds": steal}


def _busy(load: dict[str, float]) -> str:
    """Load average, and how many cores others kept busy meanwhile."""
    own, others, stolen = load.values()
    return (
        f"load average {psutil.getloadavg()[0]:.1f} on {usable_cores()} cores; while measuring, {own:.1f} s of "
        f"processor time went to this, {others:.1f} s to other processes, {stolen:.1f} s to the host's others"
    )
