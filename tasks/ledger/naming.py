"""What a machine is called: by what it is made of, never by its host or its user."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path


def slug(cpu: str, cores: int, gpus: list[str]) -> str:
    """What a machine is, as a file's name, e.g. `intel-xeon-processor-2-cores`, `...-16-cores-2x-nvidia-l4`."""
    cpu = re.sub(r"\((R|TM|C)\)|\bCPU\b|@.*", " ", cpu, flags=re.IGNORECASE)
    cards = [f"{gpus.count(gpu)}x {gpu}" if gpus.count(gpu) > 1 else gpu for gpu in dict.fromkeys(gpus)]
    words = f"{cpu or 'processor'} {cores} core{'s' if cores > 1 else ''} {' '.join(cards)}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def cpu_model() -> str:
    """The processor in its maker's words; the architecture where the system doesn't say."""
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
