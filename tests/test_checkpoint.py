"""Checkpoints: written while training goes on, whole or not at all, and of no use to another job."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.models.load import new_model
from tasks.sentences import in_words
from tasks.training import checkpoint
from tasks.training.loop import Loop
from tasks.training.state import load_rows, rows_of, state_tensors
from tests.models import config, job
from tests.test_training import batch, same, settings, weights

BLOCK = 1 << 10


def train(place: Job, batches: Callable[[int], Any] = batch, **changes: Any) -> dict[str, Any]:
    """Final weights."""
    model = new_model(config(), seed=0)
    Loop(model, batches, settings(**changes), place).run()
    return weights(model)


def names(place: Job) -> list[str]:
    """Checkpoints that are there."""
    return sorted(path.name for path in place.work.glob("checkpoint*"))


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are taken meanwhile and change nothing in it; one at a time; the last one is there when training ends."""
    real, at_work, most = checkpoint._fill, threading.Semaphore(1), []
    begun = threading.Event()  # step 4 has begun: the checkpoint of step 3 may go on

    def slow(folder: Path, made: checkpoint.Written) -> None:
        most.append(at_work.acquire(blocking=False))
        if '"step": 3,' in made[0]:
            assert begun.wait(60)
        real(folder, made)
        at_work.release()

    def watched(number: int) -> Any:
        if number == 4:
            begun.set()
        return batch(number)

    place = job(tmp_path / "slow")
    monkeypatch.setattr(checkpoint, "_fill", slow)
    train(place, watched, keep_checkpoints=9)
    assert all(most)
    assert names(place) == [f"checkpoint-{step:08d}" for step in (0, 3, 6, 9, 10)]
    monkeypatch.setattr(checkpoint, "_fill", real)
    early = job(tmp_path / "early")
    train(early, steps=10, keep_checkpoints=9)
    for name in ("weights.safetensors", "optimizer.safetensors"):
        slowly, at_once = (folder.work / "checkpoint-00000003" / name for folder in (place, early))
        assert slowly.read_bytes() == at_once.read_bytes()


def test_the_last_k_are_kept(tmp_path: Path) -> None:
    """`keep_checkpoints` of them, the newest."""
    place = job(tmp_path)
    train(place, keep_checkpoints=3)
    assert names(place) == [f"checkpoint-{step:08d}" for step in (6, 9, 10)]


def test_a_checkpoint_of_another_job_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Copied into the folder of another key, a checkpoint is passed over in one line, left alone, and in nobody's way."""
    other = job(tmp_path / "other")
    train(other, learning_rate=1e-1)
    place = Job("test", tmp_path / "own")
    for folder in other.work.glob("checkpoint-*"):
        shutil.copytree(folder, place.work / folder.name)
    straight = train(job(tmp_path / "straight"))
    capsys.readouterr()
    assert same(straight, train(place))
    said = [line for line in capsys.readouterr().err.splitlines() if "of other parameters" in line]
    assert [line.split()[1] for line in said] == ["checkpoint-00000010", "checkpoint-00000009"]
    assert (place.work / "refused-checkpoint-00000010" / "weights.safetensors").exists()
    assert names(place) == ["checkpoint-00000009", "checkpoint-00000010"]


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(24, "Too many open files"), RuntimeError("can't allocate memory")]
)
def test_what_cannot_be_read_now_stays(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint isn't damaged because memory or files ran out: it is there for the next attempt."""
    place = job(tmp_path)
    train(place, keep_checkpoints=3)
    before = names(place)

    def failing(_folder: Path) -> checkpoint.Written:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_read", failing)
        with pytest.raises(type(error)):
            train(place)
    assert names(place) == before
    assert len((place.work / "steps.done").read_bytes()) == 10
    train(place)
    assert len((place.work / "steps.done").read_bytes()) == 10, "nothing was trained again"


def _size(place: Job) -> int:
    """Bytes of a checkpoint."""
    return sum(file.stat().st_size for file in (place.work / "checkpoint-00000010").iterdir())


@contextmanager
def _limited(_folder: Path, _size: int) -> Iterator[Callable[[], object]]:
    """A limit on the size of files, which root cannot pass either: weights fit, the optimizer's moments don't."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500 * BLOCK, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[Callable[[], object]]:
    """A file system with room for two checkpoints and a half."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(2.5 * size)}", "tmpfs", folder], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", f"remount,size={9 * size}", folder], check=True)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


FULL = {"file size limit": _limited} | ({"the disk is full": _small_disk} if os.geteuid() == 0 else {})


@pytest.mark.parametrize("full", FULL)
def test_on_a_full_disk_the_checkpoint_before_survives(
    tmp_path: Path, full: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said in words at a step's end, half a checkpoint is never left, and with room again the run ends as if nothing was."""
    before = job(tmp_path / "straight")
    straight = train(before)
    folder = tmp_path / "small"
    with FULL[full](folder, _size(before)) as make_room:
        place = job(folder)
        with pytest.raises(UserError, match=full) as caught, in_words("test"):
            train(place)
        assert "make room and run again" in caught.value.hint
        last = names(place)[-1]
        assert last in ("checkpoint-00000000", "checkpoint-00000006")
        assert "checkpoint.tmp" not in names(place)
        make_room()
        capsys.readouterr()
        assert same(straight, train(place))
        assert (f"goes on from step {int(last[-8:])}" in capsys.readouterr().err) == (last[-8:] != "00000000")


def test_an_error_in_the_background_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised no later than where the next checkpoint would begin, and the finished ones stay."""

    def denied(folder: Path, made: checkpoint.Written) -> None:
        if '"step": 6,' in made[0]:
            raise PermissionError(13, "Permission denied", str(folder))
        real(folder, made)

    real, place, seen = checkpoint._fill, job(tmp_path), list[int]()
    monkeypatch.setattr(checkpoint, "_fill", denied)

    def watched(number: int) -> Any:
        seen.append(number)
        return batch(number)

    with pytest.raises(UserError, match="permission denied"), in_words("test"):
        train(place, watched)
    assert max(seen) <= 8
    assert names(place) == ["checkpoint-00000000", "checkpoint-00000003"]


def test_an_optimizer_comes_back_as_it_was() -> None:
    """Numbers stay numbers of their kind, and a state in another dtype than its parameter's keeps it."""
    import torch

    made = [torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)) for _ in range(2)]
    one, other = (torch.optim.SGD(made, lr=0.1) for _ in range(2))
    one.state[made[1]] |= {"average": torch.tensor([1.0 + 2**-20, 2.0]), "k": 3, "sum": 0.1, "warm": True, "no": None}
    load_rows(other, rows_of(state_tensors(one.state_dict())))
    back = other.state[made[1]]
    assert back.pop("average").equal(one.state[made[1]]["average"])
    assert {name: (value, type(value)) for name, value in back.items()} == {
        "k": (3, int), "sum": (0.1, float), "warm": (True, bool),
    }  # fmt: skip
    assert made[0] not in other.state
    one.state[made[0]]["projector"] = object()
    with pytest.raises(TypeError, match=r"0\.projector is a object"):
        state_tensors(one.state_dict())


def test_what_an_optimizer_counts_in_its_groups_comes_back(tmp_path: Path) -> None:
    """Schedule-free optimizers sum their weights there: a resumed run goes on with the sum."""
    place = job(tmp_path)
    loop = Loop(new_model(config(), seed=0), batch, settings(steps=4), place)
    for group in loop.optimizer.param_groups:
        group["weight_sum"] = 0.25
    loop.run()
    again = Loop(new_model(config(), seed=0), batch, settings(), place)
    again.keeper.restore()
    assert [group["weight_sum"] for group in again.optimizer.param_groups] == [0.25, 0.25]
