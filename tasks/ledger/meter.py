"""What a stage costs in its own process and its children: time, memory, energy, over every attempt it took."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tasks.core.files import write_whole
from tasks.core.measure import Metrics, Value, counted, measured, missing
from tasks.ledger.energy import RAPL, Instruments
from tasks.ledger.family import living

SAVE_SECONDS = 1.0
"""`Meter.save` writes at most this often: what a kill can take off the books."""

LOOK_SECONDS = 1.0
"""Energy counters and children are looked at at most this often while a stage runs (either costs up to milliseconds)."""


@dataclass(frozen=True)
class Spent:
    """What has been used so far, all attempts together.

    Attributes:
        wall: seconds on the clock.
        cpu: processor seconds, user and system, of the process and its children, living or reaped.
        cpu_joules: processor energy that was metered; None where any attempt could not meter it.
        gpu_joules: energy of the graphics cards; 0 without one; None where there is one that could not be read.
        peak_memory: largest resident set of any of the stage's processes, or of its living children together, bytes.
        attempts: processes it took.
    """

    wall: float = 0.0
    cpu: float = 0.0
    cpu_joules: float | None = 0.0
    gpu_joules: float | None = 0.0
    peak_memory: int = 0
    attempts: int = 0

    @property
    def joules(self) -> float | None:
        """Metered energy, or None where a part of it had no meter."""
        return _sum(self.cpu_joules, self.gpu_joules)

    def __add__(self, other: Spent) -> Spent:
        """Costs and attempts add up; of the peaks the larger stays."""
        return Spent(
            wall=self.wall + other.wall,
            cpu=self.cpu + other.cpu,
            cpu_joules=_sum(self.cpu_joules, other.cpu_joules),
            gpu_joules=_sum(self.gpu_joules, other.gpu_joules),
            peak_memory=max(self.peak_memory, other.peak_memory),
            attempts=self.attempts + other.attempts,
        )

    @classmethod
    def load(cls, path: Path) -> Spent:
        """What earlier attempts left at `path`; nothing where there is no such file, or a damaged one."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


class Meter(AbstractContextManager["Meter"]):
    """Measures this process from `__enter__` to `__exit__`, whatever happens in between.

    Args:
        previous: what killed attempts at the same work have cost already.
        rapl_root: where the processor's energy counters are.
    """

    def __init__(self, previous: Spent | None = None, rapl_root: Path = RAPL) -> None:
        self.previous = previous or Spent()
        self.instruments = Instruments(rapl_root)
        self._saved = self._looked = float("-inf")
        self._energy: tuple[float | None, float | None] = (0.0, 0.0)
        self._start = time.perf_counter()
        self.living, self._family_peak, self._cpu = living(), 0, 0.0
        self._cpu_start, self._children_before = cpu_seconds() + self.living.cpu, children_peak_bytes()
        self._final: Spent | None = None

    def __enter__(self) -> Meter:
        self.instruments.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._final = self.spent(fresh=True)
        finally:
            self.instruments.stop()

    def spent(self, fresh: bool = False) -> Spent:
        """Everything used until now, earlier attempts included; cheap enough for every step.

        Args:
            fresh: look at energy counters and children even if that was done less than `LOOK_SECONDS` ago.
        """
        if self._final is not None:
            return self._final
        now = time.perf_counter()
        used = (
            cpu_seconds() - self._cpu_start
        )  # first: a child reaped between the two is missed for once, not counted twice
        if fresh or now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._energy = self.instruments.cpu.joules(), self.instruments.gpu.joules()
            self.living = living()
            self._family_peak = max(self._family_peak, self.living.resident)
            used += self.living.cpu
        self._cpu = max(self._cpu, used)  # never less: what a child has used is lost where nobody is left to reap it
        this = Spent(
            wall=now - self._start,
            cpu=self._cpu,
            cpu_joules=self._energy[0],
            gpu_joules=self._energy[1],
            peak_memory=self.peak_memory_bytes(),
            attempts=1,
        )
        return self.previous + this

    def peak_memory_bytes(self) -> int:
        """Largest resident set of this process, of a child reaped since this meter began, or of living ones together.

        The system keeps one maximum for all children there ever were: it counts once it exceeds that of the earlier
        ones.
        """
        children = children_peak_bytes()
        return max(own_peak_bytes(), children if children > self._children_before else 0, self._family_peak)

    def save(self, path: Path, force: bool = False) -> None:
        """Leave what was spent at `path` for the attempt after a kill: atomically, at most once in `SAVE_SECONDS`."""
        now = time.perf_counter()
        if not force and now - self._saved < SAVE_SECONDS:
            return
        self._saved = now
        write_whole(path, json.dumps(asdict(self.spent(fresh=force))))

    def metrics(self) -> Metrics:
        """The ledger's entries. `energy_joules` is null where a part had no meter: `report.priced` models that part."""
        spent = self.spent(fresh=True)
        metrics: Metrics = {
            "wall_seconds": measured(spent.wall),
            "cpu_seconds": measured(spent.cpu, "user and system, child processes included"),
            "peak_memory_bytes": measured(
                spent.peak_memory, "largest resident set of one process, or of all living children together"
            ),
            "peak_device_memory_bytes": _device_memory(),
            "attempts": counted(spent.attempts),
        }
        return metrics | self._energy_metrics(spent)

    def _energy_metrics(self, spent: Spent) -> Metrics:
        cpu, gpu = self.instruments.cpu, self.instruments.gpu
        unread = "an earlier attempt was not metered"
        parts: Metrics = {"energy_joules/cpu": _metered(spent.cpu_joules, "RAPL, whole machine", cpu.reason or unread)}
        if gpu.cards or spent.gpu_joules != 0.0:
            note = f"NVML, {gpu.cards} whole card(s)"
            parts["energy_joules/gpu"] = _metered(spent.gpu_joules, note, gpu.reason or unread)
        notes = "; ".join(part.note for part in parts.values() if (part.value is None) == (spent.joules is None))
        return {"energy_joules": _metered(spent.joules, notes, notes), **parts}


def _metered(joules: float | None, instrument: str, reason: str) -> Value:
    return missing(reason) if joules is None else measured(joules, instrument)


def cpu_seconds() -> float:
    """Processor seconds of this process and its reaped children, user and system."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def children_peak_bytes() -> int:
    """Largest resident set that any reaped child of this process has had."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _MAXRSS_UNIT


def own_peak_bytes() -> int:
    """Largest resident set of this process.

    Linux hands `ru_maxrss` down through exec, so a small process started by a large one would report its parent's;
    the kernel's `VmHWM` is the process's own.
    """
    try:
        status = Path("/proc/self/status").read_bytes()
        return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, IndexError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def resident_bytes() -> int:
    """Resident set of this process now; where the system has no /proc, the largest it has been."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return own_peak_bytes()


_PAGE = os.sysconf("SC_PAGE_SIZE")
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def _device_memory() -> Value:
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return missing("no CUDA device")
    if not torch.cuda.is_initialized():
        return missing("this stage did not use the CUDA device")
    peak = max(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
    return measured(peak, "largest of the devices, allocator's count")
