"""Checkpoints to resume from: trainable weights, optimizer state and progress, atomic, safetensors only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.training.balance import balancing_state
from tasks.training.world import World

KEEP = 2


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        step: optimizer steps done.
        tokens, flops, seconds: spent in those steps, over all attempts.
        recent: losses of the last steps.
    """

    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    recent: list[float] = field(default_factory=list)


def _name(step: int) -> str:
    return f"checkpoint-{step:08d}"


def save(job: Job, graph: Any, optimizer: Any, progress: Progress, world: World) -> None:
    """Write a checkpoint of what a `Graph` trains; it appears whole or not at all, and the last `KEEP` stay.

    All workers give their part, the main one writes.
    """
    from safetensors.torch import save_file

    target = job.work / _name(progress.step)
    if world.agreed("kept" if target.exists() else ""):
        return
    trained = world.weights({name: parameter.detach() for name, parameter in graph.trained()})
    state, beside = _optimizer_tensors(world.optimizer_state(optimizer)), world.state()
    if not world.is_main:
        return
    unfinished = job.work / "checkpoint.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in trained.items()}
    weights |= balancing_state(graph.model)
    save_file(weights, unfinished / "weights.safetensors")
    save_file(state, unfinished / "optimizer.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in beside.items()}, unfinished / "world.safetensors")
    (unfinished / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    os.replace(unfinished, target)
    for old in _found(job.work)[KEEP:]:
        shutil.rmtree(old)


def _optimizer_tensors(whole: dict[str, Any]) -> dict[str, Any]:
    rows = whole["state"].items()
    return {f"{index}.{name}": value.contiguous() for index, row in rows for name, value in row.items()}


def _found(work: Path) -> list[Path]:
    """Finished checkpoints, newest first."""
    return sorted(work.glob("checkpoint-*"), reverse=True)


def restore(job: Job, graph: Any, optimizer: Any, world: World) -> Progress:
    """Load the newest readable checkpoint into a `Graph` and its optimizer; from the start if there is none."""
    for folder in _found(job.work):
        try:
            weights, state, beside, progress = _read(folder)
        except Exception as error:
            job.say(f"{folder.name} is damaged ({error}); going back to the one before")
            shutil.rmtree(folder)
            continue
        world.load_weights(dict(graph.trained()) | balancing_state(graph.model), weights)
        world.load_optimizer(optimizer, state)
        if beside:
            world.load_state(beside)
        job.rewind(progress.step)
        job.say(f"goes on from step {progress.step}")
        return progress
    job.rewind(0)
    return Progress()


def _read(folder: Path) -> tuple[dict[str, Any], dict[int, dict[str, Any]], dict[str, Any], Progress]:
    from safetensors.torch import load_file

    weights = load_file(folder / "weights.safetensors")
    state: dict[int, dict[str, Any]] = {}
    for index, name, value in _split(load_file(folder / "optimizer.safetensors")):
        state.setdefault(index, {})[name] = value
    beside = load_file(folder / "world.safetensors")
    return weights, state, beside, Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))


def _split(tensors: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        yield int(index), name, value
