"""kill -9 in the middle of any stage, then go on: the result is bit for bit that of an uninterrupted run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tasks.params import STAGES
from tests.conftest import Workspace, build

pytestmark = pytest.mark.slow
FRUGAL = {
    "deploy_profile.engines": ["llama_cpp"],
    "deploy_profile.gguf": ["Q8_0"],
    "pretrain.steps": 40,
    "pretrain.checkpoint_every": 10,
    "finetune.steps": 20,
    "finetune.checkpoint_every": 5,
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which every stage ran without a break."""
    space = build(tmp_path_factory.mktemp("straight"))
    space.set(FRUGAL)
    space.run("dvc", "repro")
    return space


def digest(space: Workspace, stage: str) -> dict[str, bytes]:
    """Every file a stage wrote."""
    root = space.root / "artifacts" / stage
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def kill_inside(space: Workspace, stage: str) -> None:
    """Start a stage through DVC and kill its whole process group once it is at work (training: past a checkpoint)."""
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", stage],
        cwd=space.root,
        env=space.env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    work = space.root / "work" / stage
    deadline = time.monotonic() + 120
    while not _at_work(work, stage):
        assert process.poll() is None, f"{stage} ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _at_work(work: Path, stage: str) -> bool:
    if stage in ("pretrain", "finetune"):
        return any(int(path.name.rpartition("-")[2]) for path in work.glob("*/checkpoint-*"))  # step 0's is the start
    return any(work.glob("*/out"))


@pytest.mark.parametrize("stage", STAGES)
def test_killed_then_resumed_is_the_same(straight: Workspace, stage: str) -> None:
    """Killed and run again, a stage leaves the very bytes of the uninterrupted run, and counts both attempts."""
    expected = digest(straight, stage)
    kill_inside(straight, stage)
    assert not (straight.root / "artifacts" / stage).exists()
    again = straight.run("dvc", "repro", "--force", "--single-item", stage)
    assert digest(straight, stage) == expected
    report = json.loads((straight.root / "reports" / f"{stage}.json").read_text())
    if stage in ("pretrain", "finetune"):
        assert "goes on from step" in again.stdout + again.stderr
        assert report["metrics"]["attempts"]["value"] == 2


def test_other_parameters_never_resume(straight: Workspace) -> None:
    """After a kill, a run with other parameters starts from nothing; the first ones' checkpoint still waits for them."""
    kill_inside(straight, "pretrain")
    straight.set({"pretrain.learning_rate": 1e-3})
    other = straight.run("dvc", "repro", "--single-item", "pretrain")
    assert "goes on from step" not in other.stdout + other.stderr
    straight.set({"pretrain.learning_rate": 1.5e-3})
    first = straight.run("dvc", "repro", "--force", "--single-item", "pretrain")
    assert "goes on from step" in first.stdout + first.stderr


def test_killed_under_one_door_goes_on_under_the_other(straight: Workspace) -> None:
    """What DVC began and a kill ended, `leanlm run` ends from the checkpoint, and with the bytes of an unbroken run."""
    straight.set({"pretrain.learning_rate": 2e-3})
    kill_inside(straight, "pretrain")
    try:
        done = straight.leanlm("run")
    finally:
        straight.leanlm("down")
    states = dict(re.findall(r"^\W*(\w+)\s+(Completed|Cached)\b", done.stdout, re.MULTILINE))
    assert states["pretrain"] == "Completed"
    assert states["data"] == "Cached"
    assert "goes on from step" in (straight.root / "work" / "logs" / "pretrain.log").read_text()
    resumed = digest(straight, "pretrain")
    straight.run("dvc", "repro", "--force", "--single-item", "pretrain")
    assert digest(straight, "pretrain") == resumed
