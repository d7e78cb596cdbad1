"""`torchrun -m tests.parallel_cases FOLDER`: every way of sharing the work, in one start of the workers."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.training.batch import Batch
from tasks.training.parallel import Parallel
from tasks.training.world import World
from tests.models import config

LENGTH, STEPS, ROWS = 16, 6, 4

CASES: dict[str, dict[str, Any]] = {
    "one": {},
    "ddp": {},
    "zero1": {"strategy": "zero1"},
    "zero2": {"strategy": "zero2"},
    "zero3": {"strategy": "zero3"},
    "fp16": {"comm_hook": "fp16"},
    "bf16": {"comm_hook": "bf16"},
    "powersgd": {"comm_hook": "powersgd", "powersgd_rank": 2},
    "diloco": {"sync_every": 2},
}
"""Name -> `pretrain.parallel`; `one` is a single process that trains on the whole batch."""

RUNS = {name: (name, 1) for name in CASES} | {f"{name}, in parts": (name, 2) for name in ("ddp", "zero2", "zero3")}
"""What is run: case and `gradient_accumulation_steps`."""

RESUMED = ("ddp", "zero1", "zero3", "powersgd", "diloco")
"""Cases that are also interrupted after step 4 and go on from the checkpoint of step 3."""


def batch(step: int) -> Batch:
    """A pattern to learn; rows have unequal numbers of labels, so that no mean of means is the mean."""
    import torch

    ids = torch.randint(0, 40, (ROWS, 1), generator=torch.Generator().manual_seed(step % 3)) * 3
    ids = ids + torch.arange(LENGTH + 1)
    labels = ids[:, 1:].clone()
    for row in range(ROWS):
        labels[row, LENGTH - 3 * row :] = -100
    return Batch(ids[:, :-1], labels)


def trained(world: World, work: Path, parts: int = 1, stop: int = STEPS) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train; weights on the main worker, and metrics.

    Args:
        world: the workers.
        work: the folder for checkpoints: another call goes on from what is there.
        parts: gradient accumulation.
        stop: step after which training is interrupted.
    """
    from tasks.models.load import new_model
    from tasks.pretrain.worker import SilentJob
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    work.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        steps=STEPS,
        learning_rate=1e-2,
        schedule=Schedule(warmup_steps=2),
        weight_decay=0.1,
        max_grad_norm=0.5,
        precision="fp32",
        checkpoint_every=3,
        seed=1,
        gradient_accumulation_steps=parts,
    )

    def watched(step: int) -> Batch:
        if step == stop:
            raise KeyboardInterrupt
        return batch(step)

    model = new_model(config(), seed=0)
    loop = Loop(model, watched, settings, (Job if world.is_main else SilentJob)("test", work), world=world)
    metrics = loop.run()
    weights = world.weights({name: parameter.detach() for name, parameter in loop.graph.trained()})
    return weights, {name: value.value for name, value in metrics.items()}


def main() -> None:
    """All cases; results below the folder."""
    from safetensors.torch import save_file

    from tasks.training.parallel import join

    folder = Path(sys.argv[1])
    with join.joined(Parallel(nproc_per_node=2)) as everyone:
        for case, (name, parts) in RUNS.items():
            parallel = Parallel(nproc_per_node=everyone.size, **CASES[name])
            if name == "one" and not everyone.is_main:
                continue
            new = World if name == "one" else lambda parallel=parallel: join.kind(parallel)(parallel)
            place = folder / case
            if name in RESUMED:
                with suppress(KeyboardInterrupt):
                    trained(new(), place / "resumed", parts, stop=4)
                everyone.agreed("the checkpoint is written")
                if name == "zero3" and everyone.is_main:
                    shutil.copytree(place / "resumed", place / "alone")
                    save_file(trained(World(), place / "alone")[0], place / "alone.safetensors")
                again, _ = trained(new(), place / "resumed", parts)
            weights, metrics = trained(new(), place / "work", parts)
            if everyone.is_main:
                save_file(weights, place / "weights.safetensors")
                if name in RESUMED:
                    save_file(again, place / "resumed.safetensors")
                (place / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
