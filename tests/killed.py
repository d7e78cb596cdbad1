"""A server of attempts for the kill matrix: torch is imported once, and every attempt is a fork that can be killed.

Run as a process of its own: reads an order per line, `{"folder": ..., "event": ..., "nth": ...}` or `{"folder": ...,
"after": seconds}`, and answers with a line. The first kills just before something happens to a file for the n-th time.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.training.spikes import Spikes
from tests.test_spikes import HIGH, NAN, Touchy, spoilt

STEPS, EVERY = 20, 4
SHAPE = {"hidden_size": 32, "intermediate_size": 64}
FILE_EVENTS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir")
"""Audit events of Python; each comes before what it tells of is done."""


def train(folder: Path) -> None:
    """A whole run with two batches that go wrong; its weights and counts end beside the work folder."""
    from safetensors.torch import save_file

    from tasks.models.load import new_model
    from tasks.training.loop import Loop
    from tests.models import config
    from tests.test_training import settings

    model = new_model(config(**SHAPE), seed=0)
    changes = {"steps": STEPS, "checkpoint_every": EVERY, "objective": Touchy(), "spikes": Spikes(window=5)}
    metrics = Loop(model, spoilt({6: NAN, 13: HIGH}), settings(**changes), Job("test", folder / "work")).run()
    save_file({name: value.detach() for name, value in model.named_parameters()}, folder / "final.safetensors")
    counts = {name: metrics[name].value for name in ("tokens", "skipped_batches", "repeated_steps")}
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


def watch(work: Path, event: str | None, nth: int, seen: list[str]) -> None:
    """Note what happens to files below `work`; kill this process before the `nth` (from 0) that `event` is part of."""

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name not in FILE_EVENTS:
            return
        path = str(arguments[0])
        pruned = name == "os.remove" and not path.startswith("/")  # `shutil.rmtree` names files within an open folder
        if pruned or path.startswith(str(work)):
            seen.append(f"{name} {Path(path).name}")
            if event and event in seen[-1] and sum(event in one for one in seen) > nth:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, train, perhaps kill; whether it was killed, and how long it took."""
    folder, began = Path(order["folder"]), time.monotonic()
    (folder / "work").mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        seen: list[str] = []
        sys.stderr = (folder / "said.txt").open("a", encoding="utf-8")
        try:
            watch(folder / "work", order.get("event"), order.get("nth", 0), seen)
            train(folder)
            (folder / "events.json").write_text(json.dumps(seen), encoding="utf-8")
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)
    if "after" in order:
        time.sleep(order["after"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - began
    return {"killed": os.WIFSIGNALED(status), "failed": os.WIFEXITED(status) and status != 0, "seconds": seconds}


def main() -> None:
    """Serve until there are no more orders."""
    import torch

    from tasks.models.load import new_model
    from tests.models import config

    for name in ("torch.utils.flop_counter", "tasks.training.graph"):  # not to be imported by every attempt
        importlib.import_module(name)
    torch.set_num_threads(1)  # a process with threads cannot be forked
    new_model(config(**SHAPE), seed=0)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(attempt(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
