"""A worker joins the others: the process group, and the way of sharing that params.yaml names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.training.parallel import Parallel
from tasks.training.world import World


@contextmanager
def joined(parallel: Parallel) -> Iterator[World]:
    """The workers, for a process that torchrun has started: NCCL where there are graphics cards, else gloo."""
    import torch
    import torch.distributed as dist

    place = {"store": _store(), "rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl", device_id=torch.device("cuda", int(os.environ["LOCAL_RANK"])), **place)
    else:
        dist.init_process_group("gloo", **place)
    try:
        yield kind(parallel)(parallel)
    finally:
        dist.destroy_process_group()


def _store() -> Any:
    """Where workers find each other: torchrun's store, a part of it for each attempt.

    torch 2.13 lets a restarted worker read what was left by those before it: the address of one that died, as often as
    not, and every restart then fails to connect.
    """
    import torch.distributed as dist

    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    alone = not hosted and os.environ["RANK"] == "0"
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=alone)
    return dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def kind(parallel: Parallel) -> Any:
    """The class of `World` for these parameters."""
    from tasks.training.parallel.local import LocalSteps
    from tasks.training.parallel.replicated import Replicated
    from tasks.training.parallel.sharded import Sharded
    from tasks.training.parallel.zero import ZeroOne

    if parallel.sync_every > 1:
        return LocalSteps
    return {"ddp": Replicated, "zero1": ZeroOne}.get(parallel.strategy, Sharded)
