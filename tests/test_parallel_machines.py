"""Several machines meet, train as one, and deliver the same; on one machine nothing listens to others."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.declaration import Declaration
from tasks.optimizers.adamw import AdamW
from tasks.training.parallel import Parallel
from tasks.training.parallel.refused import refusals
from tests.parallel_stage import pretrained
from tests.test_parallel_stage import checkpoints, wait_for, weights, workers

STEPS = 60


def together(folders: list[Path], way: dict[str, object]) -> list[subprocess.Popen[bytes]]:
    """The stages of two machines of one worker each, the second one first."""

    def machine(folder: Path, rank: int) -> subprocess.Popen[bytes]:
        parallel = {"nnodes": 2, "node_rank": rank, "rdzv_endpoint": f"127.0.0.1:{port}", **way}
        command = [sys.executable, "-m", "tests.parallel_stage", str(folder), str(STEPS)]
        return subprocess.Popen([*command, json.dumps({"parallel": parallel})])

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [machine(folders[rank], rank) for rank in (1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("way", [{"strategy": "zero3"}, {"comm_hook": "powersgd"}], ids=["zero3", "powersgd"])
def test_two_machines_deliver_what_one_does(tmp_path: Path, way: dict[str, object]) -> None:
    """Both stages killed, one without its newest checkpoint, then a worker of one: both end with the weights of one machine."""
    one, *two = (tmp_path / name for name in ("one", "first", "second"))
    pretrained(one, STEPS, parallel={"nproc_per_node": 2, **way})
    stages = together(two, way)
    wait_for(lambda: all(len(checkpoints(folder)) > 1 for folder in two))
    for stage in stages:
        stage.kill()
        stage.wait()
    newest = two[1] / "work" / checkpoints(two[1])[-1]
    newest.rename(newest.with_name("lost"))
    stages = together(two, way)
    wait_for(lambda: (two[1] / "work" / newest.name).exists())
    (victim,) = workers(stages[0].pid).values()
    victim.kill()
    assert [stage.wait(timeout=400) for stage in stages] == [0, 0]
    assert weights(two[0]) == weights(two[1]) == weights(one)
    rows = [(folder / "work" / "history.csv").read_text().splitlines() for folder in two]
    assert len(rows[0]) == len(rows[1]) == STEPS + 1


@pytest.mark.slow
def test_nothing_listens_to_other_machines(tmp_path: Path) -> None:
    """While workers of one machine train, no socket of torchrun, the workers or the stage listens beyond the loopback."""
    command = [sys.executable, "-m", "tests.parallel_stage", str(tmp_path), str(STEPS)]
    stage = subprocess.Popen(command)
    heard: set[str] = set()
    looks = 0

    def looked() -> bool:
        nonlocal looks
        for process in [psutil.Process(stage.pid), *psutil.Process(stage.pid).children(recursive=True)]:
            try:
                listening = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            heard.update(listening)
        looks += len(workers(stage.pid)) == 2
        return bool(checkpoints(tmp_path)) and looks > 3

    wait_for(looked)
    assert stage.wait(timeout=400) == 0
    assert heard == {"127.0.0.1"}  # gloo's


def test_machines_of_one_run_have_one_key() -> None:
    """Where a machine stands is no part of what it works on; how many there are is."""

    def key(**changes: object) -> str:
        parallel = {"nnodes": 2, "node_rank": 0, "rdzv_endpoint": "first:29400", **changes}
        return Declaration("pretrain", {}, [], {"seed": 0, "pretrain": {"parallel": parallel}}, Path(), None).key()

    assert key() == key(node_rank=1, rdzv_endpoint="10.0.0.1:29400")
    assert key() != key(nnodes=3)


@pytest.mark.parametrize("endpoint", ["localhost:0", "first", "first:", ":29400", "first:99999", "first:port"])
def test_machines_without_a_place_to_meet_are_refused(endpoint: str) -> None:
    """One machine needs none; several need a name and a port."""
    (sentence,) = refusals(Parallel(nnodes=2, rdzv_endpoint=endpoint), 16, AdamW())
    assert sentence.startswith(f"pretrain.parallel.rdzv_endpoint: found {endpoint};")
    assert not list(refusals(Parallel(nnodes=2, rdzv_endpoint="first:29400"), 16, AdamW()))
    assert not list(refusals(Parallel(rdzv_endpoint=endpoint), 16, AdamW()))
