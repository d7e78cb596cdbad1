"""Pretraining on two workers, as the stage starts them: killed, stopped and refused like one process."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.core.errors import Diverged, OverBudget, UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics
from tasks.ledger import Budget, Prices
from tasks.ledger.meter import Meter, Spent, cpu_seconds
from tasks.ledger.watch import Watch
from tasks.pretrain import Pretrain
from tasks.pretrain import workers as workers_of_stage
from tasks.pretrain.launch import dies_with_parent, environment
from tasks.pretrain.worker import MainJob
from tasks.pretrain.workers import Inputs, Room
from tasks.training.parallel import Parallel
from tasks.training.parallel.refused import lacking
from tests.parallel_stage import pretrained

STEPS = 120
"""Enough to be at work for a second."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, pretrained(folder, STEPS)


def weights(folder: Path) -> bytes:
    """The model that came out."""
    return (folder / "out" / "model.safetensors").read_bytes()


def checkpoints(folder: Path) -> list[str]:
    """Names, oldest first."""
    return sorted(path.name for path in (folder / "work").glob("checkpoint-0*"))


def workers(parent: int) -> dict[str, psutil.Process]:
    """Rank -> training process below one. A process that ends while it is looked at is none."""
    found: dict[str, psutil.Process] = {}
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if rank := process.environ().get("RANK"):
                found[rank] = process
    return found


def wait_for(condition: object, seconds: float = 400.0) -> None:
    """Until it is true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def kill_a_worker(folder: Path, after: int) -> Iterator[int]:
    """Once there are more checkpoints, end one worker as the system does when memory runs out."""
    wait_for(lambda: len(checkpoints(folder)) > 0 and int(checkpoints(folder)[-1][-8:]) > after)
    victim = workers(os.getpid())["1"]
    victim.kill()
    yield victim.pid


@pytest.mark.slow
def test_killed_stopped_and_killed_again_is_the_same(straight: tuple[Path, Metrics], tmp_path: Path) -> None:
    """The stage killed, the budget used up, a worker killed: nothing stays behind, and the same bytes come out."""
    command = [sys.executable, "-m", "tests.parallel_stage", str(tmp_path), str(STEPS)]
    stage = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: checkpoints(tmp_path))
    family = psutil.Process(stage.pid).children(recursive=True)
    assert len(workers(stage.pid)) == 2
    stage.send_signal(signal.SIGKILL)
    stage.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]

    before = int(checkpoints(tmp_path)[-1][-8:])
    with pytest.raises(OverBudget, match=rf"stopped after step \d+ of {STEPS}: budget.flops is used up") as stopped:
        pretrained(
            tmp_path,
            STEPS,
            lambda _: "budget.flops is used up" if checkpoints(tmp_path)[-1][-8:] > f"{before:08d}" else "",
        )
    at = int(str(stopped.value).split("after step ")[1].split()[0])
    assert checkpoints(tmp_path)[-1] == f"checkpoint-{at:08d}"

    killed: list[int] = []
    thread = threading.Thread(target=lambda: killed.extend(kill_a_worker(tmp_path, at)))
    thread.start()
    metrics = pretrained(tmp_path, STEPS)
    thread.join()
    assert killed
    folder, undisturbed = straight
    assert weights(tmp_path) == weights(folder)
    assert metrics["communication_bytes/training"] == undisturbed["communication_bytes/training"]
    assert metrics["tokens"] == undisturbed["tokens"]
    rows = (tmp_path / "work" / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(STEPS)]


@pytest.mark.slow
def test_divergence_is_said_as_by_one_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A loss that is no number on the workers: the same error and exit code, and no traceback."""
    with pytest.raises(Diverged, match="is not a number") as caught:
        pretrained(tmp_path, 20, learning_rate=1e30, schedule={"warmup_steps": 0})
    assert caught.value.code == 4
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_what_all_workers_spend_is_watched(tmp_path: Path) -> None:
    """Memory, energy and money of both workers stand in every row and on the disk while they run, and never fall."""
    kept = tmp_path / "spent.json"
    began = cpu_seconds()
    with Meter() as meter:
        watch = Watch(Budget(seconds=1e6), {}, meter, Prices(), kept)
        on_disk: list[float] = []

        def watched() -> None:
            wait_for(lambda: len(checkpoints(tmp_path)) > 1)
            on_disk.append(Spent.load(kept).cpu)
            on_disk.append(cpu_seconds() - began)

        thread = threading.Thread(target=watched)
        thread.start()
        pretrained(tmp_path, STEPS, watch)
        thread.join()
    assert on_disk[0] > on_disk[1] + 1  # what this process and those it has reaped have used is not all of it
    with (tmp_path / "work" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == STEPS
    for column in ("energy_joules", "dollars"):
        values = [float(row[column]) for row in rows]
        assert values == sorted(values)
        assert values[-1] > values[0] > 0
    assert max(float(row["memory_bytes"]) for row in rows) > 300 << 20
    assert meter.spent().peak_memory > 300 << 20


def test_what_can_t_be_shared_is_refused_before_workers_start(tmp_path: Path) -> None:
    """Five rows for two workers."""
    with pytest.raises(UserError, match=r"pretrain\.batch_size: found 5"):
        pretrained(tmp_path, 20, batch_size=5)


def test_more_workers_than_cards_are_refused_before_they_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are graphics cards, every worker needs one; where there are none, any number shares the processor."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        UserError, match=r"pretrain\.parallel\.nproc_per_node: found 2; graphics cards of this machine: 1,"
    ):
        workers_of_stage.train(
            Pretrain(parallel=Parallel(nproc_per_node=2)), 0, Inputs(*[tmp_path] * 3), Job("p", tmp_path)
        )
    assert not list(tmp_path.iterdir())
    assert not list(lacking(Parallel(nproc_per_node=2), 2))
    assert not list(lacking(Parallel(nproc_per_node=2), 0))


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers' threads together are no more than the cores, nor than what was asked for; they talk over loopback."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert environment(Parallel(nproc_per_node=2))["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment(Parallel(nproc_per_node=2))["OMP_NUM_THREADS"] == "1"
    assert environment(Parallel(nproc_per_node=2))["GLOO_SOCKET_IFNAME"] == "lo"
    assert "GLOO_SOCKET_IFNAME" not in environment(Parallel(nproc_per_node=2, nnodes=2, rdzv_endpoint="first:29400"))


def test_systems_other_than_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without affinities, prctl and `lo`: all cores are shared out, and the main worker sees that its stage is gone."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    for name in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    found = environment(Parallel(nproc_per_node=2))
    assert (found["OMP_NUM_THREADS"], found["GLOO_SOCKET_IFNAME"]) == ("3", "lo0")
    monkeypatch.setattr(ctypes, "CDLL", None)  # calling it would fail
    dies_with_parent()()
    Room.of(tmp_path).folder.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert MainJob("pretrain", tmp_path, pid=os.getpid()).over_budget(1.0) == ""
    assert MainJob("pretrain", tmp_path, pid=ended.pid).over_budget(1.0) == "the stage was killed"
