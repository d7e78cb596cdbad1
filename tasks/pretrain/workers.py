"""Training on several workers, as the stage sees it: torchrun starts them, this process watches over them."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from tasks.core.errors import Diverged, OverBudget, UserError
from tasks.core.files import write_whole
from tasks.core.job import Job
from tasks.core.measure import Metrics, Value
from tasks.pretrain import Pretrain
from tasks.pretrain.launch import command, dies_with_parent, environment
from tasks.training.parallel import Parallel
from tasks.training.parallel.refused import lacking

POLL_SECONDS = 0.1
"""Time between two looks at the budget."""

KINDS = {kind.__name__: kind for kind in (UserError, OverBudget, Diverged)}


@dataclass(frozen=True)
class Inputs:
    """Folders of the stage."""

    data: Path
    design: Path
    init: Path
    teacher: Path | None = None


@dataclass(frozen=True)
class Room:
    """The folder where stage and workers leave each other word: `job.work/workers`."""

    folder: Path

    @classmethod
    def of(cls, work: Path) -> Room:
        """The one below a stage's `work`."""
        return cls(work / "workers")

    @property
    def spec(self) -> Path:
        """What the workers are to do."""
        return self.folder / "spec.json"

    @property
    def flops(self) -> Path:
        """FLOPs done so far, by the main worker."""
        return self.folder / "flops"

    @property
    def stop(self) -> Path:
        """The resource that ran out, by the stage."""
        return self.folder / "stop"

    @property
    def spent(self) -> Path:
        """What the whole stage has spent and what is left of its budget, by the stage."""
        return self.folder / "spent.json"

    @property
    def trained(self) -> Path:
        """Weights, by the main worker at the end."""
        return self.folder / "trained.safetensors"

    @property
    def metrics(self) -> Path:
        """Metrics, by the main worker, last of all."""
        return self.folder / "metrics.json"

    @property
    def meeting(self) -> Path:
        """Where workers of one machine find each other: torchrun in this file, those of an attempt in one beside it."""
        return self.folder / "meeting"

    def error(self, rank: int) -> Path:
        """What a worker could not do."""
        return self.folder / f"error-{rank:04d}.json"

    def errors(self) -> list[Path]:
        """Of all workers, the main one's first."""
        return sorted(self.folder.glob("error-*.json"))


def train(params: Pretrain, seed: int, inputs: Inputs, job: Job) -> Metrics:
    """Train on `params.parallel.workers` workers; the weights wait for `load_trained`.

    Raises:
        UserError: there are fewer graphics cards than workers; what a worker could not do, as it would be said by a single process; or torchrun gave up.
        OverBudget: a resource ran out; a checkpoint of the step where the workers stopped is kept.
        Diverged: a loss that is not a number.
    """
    import torch

    if found := list(lacking(params.parallel, torch.cuda.device_count() if torch.cuda.is_available() else 0)):
        raise UserError("\n".join(found))
    room = Room.of(job.work)
    room.folder.mkdir(exist_ok=True)
    for path in (room.stop, room.flops, room.metrics, room.trained, *room.errors(), *room.folder.glob("meeting*")):
        path.unlink(missing_ok=True)
    rates = {"gemm_flops_per_second": job.gemm_flops_per_second}
    places = {name: path and str(path) for name, path in asdict(inputs).items()}
    spec = {"params": params.model_dump(mode="json"), "seed": seed, "stage": job.stage, "work": str(job.work)}
    leave(room.spec, spec | {"pid": os.getpid()} | places | rates)
    code = _watched(params.parallel, room, job)
    for path in room.errors():
        _raise(json.loads(path.read_text(encoding="utf-8")))
    if code or not room.metrics.exists():
        raise UserError(
            f"{job.stage}: the workers died (torchrun ended with {code}); what they said is above",
            f"they were started again {params.parallel.max_restarts} times (pretrain.parallel.max_restarts); "
            "the last checkpoint is kept: run again and it goes on from there" + _together(params.parallel),
        )
    metrics = json.loads(room.metrics.read_text(encoding="utf-8"))
    return {name: Value(**value) for name, value in metrics.items()}


def _together(parallel: Parallel) -> str:
    """What machines must have in common, for those that could not meet."""
    if parallel.nnodes == 1:
        return ""
    return (
        f"; {parallel.nnodes} machines meet at pretrain.parallel.rdzv_endpoint {parallel.rdzv_endpoint} if they have the same "
        "inputs, code and parameters, node_rank and rdzv_endpoint aside"
    )


def leave(path: Path, value: Any) -> None:
    """Write JSON that appears whole or not at all."""
    write_whole(path, json.dumps(value))


def load_trained(model: Any, job: Job) -> None:
    """Copy what the workers have trained into `model`."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(Room.of(job.work).trained), strict=False)


def _watched(parallel: Parallel, room: Room, job: Job) -> int:
    """Torchrun's exit code; whatever ends this process ends the workers."""
    _tell(room, job)
    with subprocess.Popen(
        command(parallel, room.spec, job.work.name, room.meeting),
        env=environment(parallel),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=dies_with_parent(),
    ) as torchrun:
        try:
            while torchrun.poll() is None:
                with suppress(OSError, ValueError):
                    job.flops = json.loads(room.flops.read_text(encoding="utf-8"))
                reason = job.over_budget(job.flops)
                _tell(room, job)
                if reason and not room.stop.exists():
                    leave(room.stop, reason)
                with suppress(subprocess.TimeoutExpired):
                    torchrun.wait(POLL_SECONDS)
        finally:
            _end(torchrun)
    return torchrun.returncode


def _tell(room: Room, job: Job) -> None:
    """Leave the main worker what it is to show and to record."""
    leave(room.spent, {"spent": job.spent(), "left": job.left()})


def _end(torchrun: subprocess.Popen[bytes]) -> None:
    """At once, and its workers with it: asked politely it would print a traceback, and checkpoints are atomic."""
    if torchrun.poll() is None:
        torchrun.kill()


def _raise(found: dict[str, Any]) -> NoReturn:
    """What a worker left, as if it had happened here."""
    kind = found["kind"]
    if kind in KINDS:
        raise KINDS[kind](found["message"], found["hint"])
    if kind == "OSError":
        raise OSError(found["errno"], found["message"], found["filename"])
    if kind == "MemoryError":
        raise MemoryError(found["message"])
    raise RuntimeError(found["message"])
