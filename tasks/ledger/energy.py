"""Energy meters: what the processor (RAPL) and the graphics cards (NVML) have drawn since they were first read."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAPL = Path("/sys/class/powercap")
"""Where Linux shows the processor's energy counters (Documentation/power/powercap)."""

POLL_SECONDS = 60.0
"""A RAPL counter starts again at zero after 2^32 x 61 uJ, which takes a package of 400 W 11 minutes."""


class _Domain:
    """One counter of microjoules that starts again at zero after `max_energy_range_uj`."""

    def __init__(self, folder: Path) -> None:
        self.counter = folder / "energy_uj"
        self.range = int((folder / "max_energy_range_uj").read_text())
        self.last = int(self.counter.read_text())
        self.total = 0

    def advance(self) -> None:
        now = int(self.counter.read_text())
        self.total += now - self.last if now >= self.last else now + self.range - self.last
        self.last = now


class Rapl:
    """The processor packages and their memory, all processes of the machine together.

    Args:
        root: the powercap folder.

    Attributes:
        reason: why nothing can be read, or "".
    """

    def __init__(self, root: Path = RAPL) -> None:
        self.domains: list[_Domain] = []
        self.reason = ""
        self._lock = threading.Lock()
        folders = [folder for folder in sorted(root.glob("intel-rapl:*")) if _counts(folder)]
        try:
            self.domains = [_Domain(folder) for folder in folders]
        except (OSError, ValueError) as error:
            self.reason = f"RAPL counters are there but cannot be read ({type(error).__name__})"
            return
        if not self.domains:
            self.reason = "no RAPL counters on this machine"

    def joules(self) -> float | None:
        """Joules since construction, or None; exact while it is called at least once per wrap of the counters."""
        if self.reason:
            return None
        with self._lock:
            try:
                for domain in self.domains:
                    domain.advance()
            except (OSError, ValueError) as error:
                self.reason = f"a RAPL counter stopped answering ({type(error).__name__})"
                return None
            return sum(domain.total for domain in self.domains) / 1e6


def _counts(folder: Path) -> bool:
    """Packages and memory add up; `core` and `uncore` are parts of a package, `psys` contains it."""
    try:
        name = (folder / "name").read_text().strip()
    except OSError:
        return False
    return name.startswith("package") or name == "dram"


class Nvml:
    """The graphics cards this process may use (CUDA_VISIBLE_DEVICES), whole cards, all processes together.

    Attributes:
        cards: number of cards; 0 where there is no card or no driver.
        reason: why nothing can be read, or "".
    """

    def __init__(self) -> None:
        self.cards = 0
        self.reason = ""
        self._handles: list[Any] = []
        try:
            import pynvml

            pynvml.nvmlInit()
        except (ImportError, OSError):
            self.reason = "no NVIDIA driver library"
            return
        except pynvml.NVMLError as error:
            self.reason = f"NVML: {error}"
            return
        self._nvml = pynvml
        try:
            self._handles = _visible(pynvml)
            self._start = self._read()
            self.reason = "" if self._handles else "no graphics card"
        except pynvml.NVMLError as error:
            self.cards, self.reason = 1, f"NVML: {error}"
        self.cards = len(self._handles) or self.cards

    def _read(self) -> float:
        return sum(float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self._handles) / 1e3

    def joules(self) -> float | None:
        """Joules since construction; 0 where there is no card; None where there is one that does not say."""
        if not self.cards:
            return 0.0
        if self.reason:
            return None
        try:
            return self._read() - self._start
        except self._nvml.NVMLError as error:
            self.reason = f"NVML: {error}"
            return None


@dataclass(frozen=True)
class Card:
    """A graphics card: its name and the power it is limited to."""

    name: str
    watts_limit: float


def cards() -> list[Card]:
    """The graphics cards this process may use; none without a driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError):
        return []
    except pynvml.NVMLError:
        return []
    try:
        return [
            Card(pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3)
            for handle in _visible(pynvml)
        ]
    except pynvml.NVMLError:
        return []


def _visible(nvml: Any) -> list[Any]:
    """Handles of the cards CUDA_VISIBLE_DEVICES leaves: all, or those named by index or UUID."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    names = [name.strip() for name in wanted.split(",") if name.strip() not in ("", "-1")]
    return [
        nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
        for name in names
    ]


class Instruments:
    """Every energy meter of this machine, read now and then in the background so that no wrap of a counter is missed.

    Args:
        rapl_root: the powercap folder.
    """

    def __init__(self, rapl_root: Path = RAPL) -> None:
        self.cpu, self.gpu = Rapl(rapl_root), Nvml()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the background reading; nothing to do where there is no RAPL."""
        if not self.cpu.reason:
            self._thread = threading.Thread(target=self._poll, name="energy", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the background reading; the meters may still be read."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self.cpu.joules()
