"""Measures the machine's rates with torch; runs in the child process of `tasks.ledger.machine` and nowhere else."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from tasks.ledger.energy import cards
from tasks.ledger.machine import Machine, available_memory, usable_cores
from tasks.models.device import best_device, native_bf16

PRODUCTS = ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 256, 1024), (4096, 1024, 256))
"""m, k, n: square ones, and the skinny ones of a small model's layers over a batch of tokens."""

LARGE_PRODUCTS = ((4096, 4096, 4096), (8192, 8192, 8192))
"""What it takes to fill a graphics card."""

SECONDS_EACH = 0.2
"""Longest time spent on one product after a warm-up."""

DISK_BYTES = 128 << 20


def rates() -> Machine:
    """Measure everything: about 5 s."""
    torch.set_grad_enabled(False)
    device = best_device()
    before = _processor_times()
    gemm = {name: gemm_rate(device, getattr(torch, name)) for name in ("float32", "bfloat16")}
    host = bandwidth("cpu")
    return Machine(
        gemm_flops_per_second=gemm,
        bandwidth_bytes_per_second=bandwidth(device) if device != "cpu" else host,
        host_bandwidth_bytes_per_second=host,
        disk_bytes_per_second=disk_rate(),
        native_bf16=native_bf16(),
        cores=usable_cores(),
        device=device,
        device_watts=sum(card.watts_limit for card in cards()) if device == "cuda" else 0.0,
        busy=_busy(before),
    )


def gemm_rate(device: str, dtype: Any) -> float:
    """Best FLOP/s over the products' shapes."""
    shapes = LARGE_PRODUCTS if device == "cuda" else PRODUCTS
    best = 0.0
    for m, k, n in shapes:
        left, right = torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype)
        best = max(best, 2 * m * k * n / _fastest(partial(torch.mm, left, right), device))
    return best


def bandwidth(device: str) -> float:
    """Best bytes per second of a copy, a triad and a sum over arrays far larger than the caches."""
    elements = _array_bytes(device) // 4
    a, b = torch.zeros(elements, device=device), torch.ones(elements, device=device)
    operations: list[tuple[int, Callable[[], Any]]] = [
        (2, lambda: a.copy_(b)),
        (3, lambda: a.add_(b, alpha=2.0)),
        (1, lambda: a.sum()),
    ]
    return max(arrays * elements * 4 / _fastest(operation, device) for arrays, operation in operations)


def _array_bytes(device: str) -> int:
    """Four times the last cache, at least 128 MiB, at most a tenth of the free memory."""
    if device != "cpu":
        return 1 << 30
    caches = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    last = max((int(size.rstrip("KM")) << (20 if size.endswith("M") else 10) for size in caches), default=32 << 20)
    return min(max(4 * last, 128 << 20), available_memory() // 10, 1 << 30)


def disk_rate() -> float:
    """Bytes per second written to a synced file where the stages write."""
    folder = Path("work")
    folder.mkdir(exist_ok=True)
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(DISK_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return DISK_BYTES / (time.perf_counter() - start)


def _fastest(operation: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest repeat after one warm-up: at least three, for at most `SECONDS_EACH` beyond them."""
    synchronize: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None
    operation()
    synchronize()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS_EACH:
        start = time.perf_counter()
        operation()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def _processor_times() -> tuple[float, float, float]:
    """Busy seconds of all cores, seconds stolen by the hypervisor, processor seconds of this process."""
    times = psutil.cpu_times()
    own = psutil.Process().cpu_times()
    return times.user + times.system, getattr(times, "steal", 0.0), own.user + own.system


def _busy(before: tuple[float, float, float]) -> str:
    """Load average, and how many cores others kept busy meanwhile."""
    busy, steal, own = (after - start for after, start in zip(_processor_times(), before, strict=True))
    return (
        f"load average {psutil.getloadavg()[0]:.1f} on {usable_cores()} cores; while measuring, {own:.1f} s of "
        f"processor time went to this, {max(0.0, busy - own):.1f} s to other processes, {steal:.1f} s to the host's others"
    )
