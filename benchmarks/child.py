"""A contender in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tasks.core.process import COMPUTING, READ_AT_START


def child(module: str, *arguments: str, ours: bool = True) -> Any:
    """What `python -m benchmarks.MODULE ARGUMENTS` prints last, as JSON.

    Args:
        module: the benchmark.
        arguments: for it.
        ours: run as a stage of this project runs. A peer isn't told how to use the heap: its users wouldn't.

    Raises:
        SystemExit: it failed; its last words.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    told = {name: value for name, value in COMPUTING.items() if ours or name != READ_AT_START}
    environment = {**told, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
