"""How torchrun is told to start the workers: where they meet, what they inherit, and when they end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tasks.training.parallel import Parallel

PATIENCE = 600
"""Seconds that a machine waits for the one where all meet."""


def command(parallel: Parallel, spec: Path, key: str, meeting: Path) -> list[str]:
    """Torchrun's arguments.

    Args:
        parallel: what params.yaml says.
        spec: what the workers are to do.
        key: of the work: machines with the same one belong together.
        meeting: a file for those that meet on one machine. Nothing listens for them: whoever reaches torchrun's port may
            have it unpickle what they like.
    """
    at, conf = str(meeting), "store_type=file"
    if parallel.nnodes > 1:
        at, conf = parallel.rdzv_endpoint, f"is_host={int(parallel.node_rank == 0)},read_timeout={PATIENCE}"
    started = [
        *(sys.executable, "-m", "torch.distributed.run"),
        f"--nproc_per_node={parallel.nproc_per_node}",
        f"--nnodes={parallel.nnodes}",
        f"--node_rank={parallel.node_rank}",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint={at}",
        f"--rdzv_conf={conf}",
        f"--rdzv_id={key}",
        f"--max_restarts={parallel.max_restarts}",
    ]
    if parallel.stays_here:  # else torchrun tells the workers to meet at the machine's name in the network
        started.append("--local_addr=127.0.0.1")
    return [*started, "-m", "tasks.pretrain.worker", str(spec)]


def environment(parallel: Parallel) -> dict[str, str]:
    """Of the workers: cores shared out (torchrun would give each one thread), and the loopback interface if that will do."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, usable // parallel.nproc_per_node)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores
    chosen = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    # else torchrun opens a port of its own, on all interfaces and the same for every attempt
    chosen["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if parallel.stays_here:
        for library in ("GLOO", "NCCL"):
            chosen.setdefault(f"{library}_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    return chosen


def dies_with_parent() -> Any:
    """A function that has the process it is called in killed when its parent dies, however that dies.

    Only Linux can: elsewhere it does nothing, and the main worker looks whether the stage is still there (`MainJob`).
    """
    if sys.platform != "linux":
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)

    def call() -> None:
        PR_SET_PDEATHSIG = 1  # noqa: N806 (linux/prctl.h)
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))

    return call
