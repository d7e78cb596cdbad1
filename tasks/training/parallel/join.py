"""A worker joins the others: the process group, and the way of sharing that params.yaml names."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.training.parallel import Parallel
from tasks.training.world import World


@contextmanager
def joined(parallel: Parallel, meeting: Path | None = None) -> Iterator[World]:
    """The workers, for a process that torchrun has started: NCCL where there are graphics cards, else gloo.

    Args:
        parallel: what params.yaml says. Workers are numbered machine by machine, so that the first one is on machine 0:
            torchrun numbers machines by their addresses.
        meeting: where those of one machine find each other, in a file beside it; None: at the port that torchrun names.
    """
    import torch
    import torch.distributed as dist

    local, size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    rank = parallel.node_rank * int(os.environ["LOCAL_WORLD_SIZE"]) + local
    place = {"store": _store(meeting, size), "rank": rank, "world_size": size}
    if torch.cuda.is_available():
        torch.cuda.set_device(local)
        dist.init_process_group("nccl", device_id=torch.device("cuda", local), **place)
    else:
        dist.init_process_group("gloo", **place)
    try:
        yield kind(parallel)(parallel)
    finally:
        dist.destroy_process_group()


def _store(meeting: Path | None, size: int) -> Any:
    """Where workers find each other, a new place for each attempt.

    torch 2.13 lets a restarted worker read what was left by those before it: the address of one that died, as often as
    not, and every restart then fails to connect.
    """
    import torch.distributed as dist

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if meeting is not None:
        return dist.FileStore(f"{meeting}-{attempt}", size)
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # each attempt has a port of its own
        return dist.TCPStore(address, port, is_master=os.environ["RANK"] == "0")
    return dist.PrefixStore(f"attempt_{attempt}", dist.TCPStore(address, port, is_master=False))


def keep_common(world: World, work: Path) -> None:
    """Leave those checkpoints that every machine has: killed at different moments, they would go on from different steps.

    Args:
        world: the workers, all of whom call this before any of them trains.
        work: the folder of this machine's checkpoints.
    """
    own = {path.name for path in work.glob("checkpoint-0*")}
    first = json.loads(world.agreed(json.dumps(sorted(own))))
    common = {name for name in first if world.total({name: float(name in own)})[name] == world.size}
    if world.is_main:
        for name in own - common:
            shutil.rmtree(work / name)


def kind(parallel: Parallel) -> Any:
    """The class of `World` for these parameters."""
    from tasks.training.parallel.local import LocalSteps
    from tasks.training.parallel.replicated import Replicated
    from tasks.training.parallel.sharded import Sharded
    from tasks.training.parallel.zero import ZeroOne

    if parallel.sync_every > 1:
        return LocalSteps
    return {"ddp": Replicated, "zero1": ZeroOne}.get(parallel.strategy, Sharded)
