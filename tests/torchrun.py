"""Workers for tests: a module under torchrun, on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def torchrun(workers: int, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={workers}", "--rdzv_backend=c10d"]
    command += ["--rdzv_endpoint=localhost:0", "--local_addr=127.0.0.1", "-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
