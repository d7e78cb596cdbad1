"""Checkpoints to go on from and back to: written in the background, atomic, safetensors and JSON only."""

from __future__ import annotations

import json
import os
import shutil
import threading
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from tasks.core.errors import UserError
from tasks.core.files import sync
from tasks.core.job import Job
from tasks.training.world import World

Written = tuple[str, dict[str, Any], dict[str, Any]]
"""A checkpoint: its `progress.json`, weights by name, optimizer state by "index.name"."""


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        step: optimizer steps done.
        tokens, flops, seconds: spent in those steps; what a kill or a roll-back threw away is not in them.
        recent: losses of the last steps.
        saved_bytes: what autograd kept of the first; None: not counted.
        validated: step and validation loss of every evaluation, where the best is gone back to.
    """

    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    saved_bytes: int | None = None
    validated: list[tuple[int, float]] = field(default_factory=list)

    @property
    def best(self) -> int | None:
        """The step of the lowest validation loss, the first of them; None before the first that is a number."""
        known = [(loss, step) for step, loss in self.validated if loss == loss]
        return min(known)[1] if known else None

    @property
    def waited(self) -> int:
        """Evaluations since the best."""
        return sum(step > (self.best or 0) for step, _ in self.validated)


class Keeper(AbstractContextManager["Keeper"]):
    """The checkpoints of one run. At its end, and wherever it stops, the one being written is waited for.

    A checkpoint is a copy made between two steps; a thread writes it while training goes on, one at a time. Its folder
    appears under its name when every byte is on the disk, so whatever is found under such a name is whole.

    Args:
        job: whose folder they lie in, and whose key they carry.
        world: the workers; the main one writes and chooses, all read.
        graph, optimizer, gradient: what is kept.
        keep: how many; older ones are removed.
    """

    def __init__(self, job: Job, world: World, graph: Any, optimizer: Any, gradient: Any, keep: int) -> None:
        self.job, self.world, self.keep = job, world, keep
        self.graph, self.optimizer, self.gradient = graph, optimizer, gradient
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None

    def save(self, progress: Progress) -> None:
        """Copy the state of this very moment and begin to write it; the one before is finished first.

        Raises:
            Exception: whatever kept the one before from being written.
        """
        self.wait()
        target = self.job.work / _name(progress.step)
        if self.world.size == 1 and target.exists():
            return
        weights, state = self.world.snapshot(self.graph, self.optimizer)
        if not self.world.is_main or target.exists():
            return
        told = {"key": self.job.work.name, "groups": _groups(self.optimizer), "gradient": self.gradient.state()}
        text = json.dumps(asdict(progress) | told)
        best = _name(progress.best) if progress.best else ""
        arguments = (target, (text, weights, state), best)
        self._writing = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._writing.start()

    def check(self) -> None:
        """Say now, between two steps, what went wrong in the background.

        Raises:
            Exception: whatever kept a checkpoint from being written; the ones before it are untouched.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Let the checkpoint that is being written reach the disk.

        Raises:
            Exception: as `check`.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        self.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as unwritten:
            if kind is None:
                raise
            self.job.say(f"the checkpoint begun last could not be written: {unwritten}")

    def _write(self, target: Path, made: Written, best: str) -> None:
        """The thread: nothing it does touches what is being trained. The checkpoint named `best` is kept, however old."""
        unfinished = self.job.work / "checkpoint.tmp"
        try:
            _fill(unfinished, made)
            os.replace(unfinished, target)
            sync(self.job.work)
            for old in _found(self.job.work)[self.keep :]:
                if old.name != best:
                    shutil.rmtree(old)
        except Exception as error:
            shutil.rmtree(unfinished, ignore_errors=True)  # on a full disk this makes room again
            self._error = error

    def restore(self, back: bool = False) -> Progress:
        """Go to the newest checkpoint that can be read and has the job's key; rows after it leave the history.

        Args:
            back: from a later step; else, where there is no checkpoint, this is the beginning.

        Raises:
            UserError: there is no checkpoint to go back to.
            MemoryError, OSError, RuntimeError: one can't be read now, and nothing says that it is damaged: it stays.
        """
        self.wait()
        found, made = self._newest() if self.world.is_main else ("", ("", {}, {}))
        found = self.world.agreed(found)
        if found and not self.world.is_main:
            made = _read(self.job.work / found)
        text = made[0]
        if not text and back:
            raise UserError(f"{self.job.stage}: no checkpoint is left to go back to", "run again: it starts anew")
        progress = Progress()
        if text:
            progress = self._load(made)
        if self.world.is_main:
            self.job.rewind(progress.step)
        return progress

    def take(self, step: int) -> None:
        """Go back to the weights of the best step, whose checkpoint is kept; the history stays as it is."""
        self.wait()
        self._load(_read(self.job.work / _name(step)))

    def _load(self, made: Written) -> Progress:
        text, weights, state = made
        told = json.loads(text)
        for group, kept in zip(self.optimizer.param_groups, told.pop("groups"), strict=True):
            group.update(kept)
        self.world.load(self.graph, self.optimizer, weights, state)
        self.gradient.load(told.pop("gradient"))
        del told["key"]
        told["validated"] = [(step, loss) for step, loss in told["validated"]]
        return Progress(**told)

    def _newest(self) -> tuple[str, Written]:
        """Folder and content of the newest checkpoint that can be read and is this job's; empty where there is none."""
        for folder in _found(self.job.work):
            try:
                made = _read(folder)
                key = json.loads(made[0])["key"]
            except _damages() as error:
                kept = _aside(folder, "damaged")
                self.job.say(f"{folder.name} is damaged ({error}): kept as {kept}; going back to the one before")
                continue
            if key == self.job.work.name:
                return folder.name, made
            kept = _aside(folder, "refused")
            self.job.say(f"{folder.name} is of other parameters, inputs or code (key {key}); kept as {kept}")
        return "", ("", {}, {})


def _name(step: int) -> str:
    return f"checkpoint-{step:08d}"


def _found(work: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted(work.glob("checkpoint-*"), reverse=True)


def _damages() -> tuple[type[Exception], ...]:
    """What reading a checkpoint raises that isn't whole. Memory or a disk that fails says nothing against the checkpoint."""
    from safetensors import SafetensorError

    return SafetensorError, ValueError, KeyError, TypeError, FileNotFoundError


def _aside(folder: Path, why: str) -> str:
    """Move a checkpoint out of the way; the name it has then."""
    name = f"{why}-{folder.name}"
    shutil.rmtree(folder.with_name(name), ignore_errors=True)
    os.replace(folder, folder.with_name(name))
    return name


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    """Plain values of each parameter group: some optimizers count steps and sum weights there."""
    plain = (bool, int, float, str)
    return [{name: v for name, v in group.items() if isinstance(v, plain)} for group in optimizer.param_groups]


def _fill(folder: Path, made: Written) -> None:
    from safetensors.torch import save_file

    text, weights, state = made
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    save_file(weights, folder / "weights.safetensors")
    save_file(state, folder / "optimizer.safetensors")
    (folder / "progress.json").write_text(text, encoding="utf-8")
    for file in sorted(folder.iterdir()):
        sync(file)
    sync(folder)


def _read(folder: Path) -> Written:
    from safetensors.torch import load_file

    text = (folder / "progress.json").read_text(encoding="utf-8")
    return text, load_file(folder / "weights.safetensors"), load_file(folder / "optimizer.safetensors")
