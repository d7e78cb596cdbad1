"""`python -m tasks.pretrain.worker SPEC.json`: one of several workers, started by torchrun."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from psutil import pid_exists

from tasks.core.errors import UserError
from tasks.core.job import Job, Progress, Row
from tasks.core.schema import validate
from tasks.pretrain import Pretrain
from tasks.pretrain.launch import dies_with_parent
from tasks.pretrain.workers import Room, leave
from tasks.training.world import World

FLOPS_SECONDS = 0.1
"""The main worker says at most this often how far it is."""


@dataclass
class MainJob(Job):
    """The main worker's job: the budget is the stage's, which says when to stop.

    Attributes:
        pid: of the stage.
    """

    pid: int = 0
    said: float = float("-inf")

    def __post_init__(self) -> None:
        self.over_budget = self._ask
        self.spent = lambda: self._told("spent")
        self.left = lambda: self._told("left")

    def _told(self, what: str) -> Row:
        """What the stage has left: it alone sees all workers and earlier attempts."""
        try:
            found: Row = json.loads(Room.of(self.work).spent.read_text(encoding="utf-8"))[what]
        except FileNotFoundError:  # a worker without a stage
            return {}
        return found

    def _ask(self, flops: float) -> str:
        room, now = Room.of(self.work), time.monotonic()
        if now - self.said >= FLOPS_SECONDS:
            self.said = now
            leave(room.flops, float(flops))
            if not pid_exists(self.pid):  # where the system does not end the children of a process that was killed
                return "the stage was killed"
        return str(json.loads(room.stop.read_text(encoding="utf-8"))) if room.stop.exists() else ""


@dataclass
class SilentJob(Job):
    """Another worker's job: it neither writes nor speaks."""

    def record(self, **row: float | str) -> None:
        """The main worker does."""

    def rewind(self, step: int) -> None:
        """The main worker does."""

    def say(self, message: str) -> None:
        """The main worker does."""

    def progress(self, total: int, initial: int = 0, unit: str = "step") -> Progress:
        """Without a bar, wherever this runs."""
        return Progress(self, total, initial, unit, shown=False)


def main() -> int:
    """Train; returns the exit code. What can't be mended by starting again is left for the stage, with exit code 0."""
    dies_with_parent()()
    if os.getppid() == 1:  # it had died before
        return 1
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    room = Room.of(Path(spec["work"]))
    if room.errors():  # torchrun starts everyone again when one fails because another has given up
        return 0
    with _left_in_words(room, int(os.environ["RANK"])):
        _train(spec, room)
    return 0


def _train(spec: dict[str, Any], room: Room) -> None:
    from safetensors.torch import save_file

    from tasks.models.load import load_tokenizer
    from tasks.pretrain.training import start, train
    from tasks.training.balance import balancing_state
    from tasks.training.parallel.join import joined, keep_common

    params = validate(Pretrain, spec["params"], "pretrain")
    data = Path(spec["data"])
    with joined(params.parallel, room.meeting if params.parallel.nnodes == 1 else None) as world:
        if params.parallel.nnodes > 1:
            keep_common(world, Path(spec["work"]))
        tokenizer = load_tokenizer(data / "tokenizer")
        model, _ = start(params, spec["seed"], tokenizer, Path(spec["design"]), Path(spec["init"]))
        teacher = spec["teacher"] and Path(spec["teacher"])
        metrics = train(model, params, spec["seed"], data, teacher, _job(spec, world), world)
        weights = world.weights({name: parameter.detach() for name, parameter in model.named_parameters()})
        if world.is_main:
            weights |= balancing_state(model)
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, room.trained)
            leave(room.metrics, {name: asdict(value) for name, value in metrics.items()})


def _job(spec: dict[str, Any], world: World) -> Job:
    common = (spec["stage"], Path(spec["work"]))
    rates = {"gemm_flops_per_second": spec["gemm_flops_per_second"]}
    return MainJob(*common, **rates, pid=spec["pid"]) if world.is_main else SilentJob(*common, **rates)


@contextmanager
def _left_in_words(room: Room, rank: int) -> Iterator[None]:
    """Leave the stage what a person can mend; anything else ends this worker, and torchrun starts all again."""
    found: dict[str, Any]
    try:
        yield
    except UserError as error:
        found = {"kind": type(error).__name__, "message": error.message, "hint": error.hint}
    except OSError as error:
        found = {"kind": "OSError", "message": error.strerror, "errno": error.errno, "filename": error.filename}
    except MemoryError as error:
        found = {"kind": "MemoryError", "message": str(error)}
    except Exception as error:
        if not re.search(r"\(os error \d+\)|alloc.*memory|memory.*alloc", str(error)):
            raise
        found = {"kind": "RuntimeError", "message": str(error)}
    else:
        return
    leave(room.error(rank), found)


if __name__ == "__main__":
    sys.exit(main())
