"""`torchrun -m tests.parallel_cases FOLDER`: every way of sharing the work, in one start of the workers."""

from __future__ import annotations

import json
import sys
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

PARTS = 2
"""`gradient_accumulation_steps` of the cases that are named with it."""


def batch(step: int) -> Batch:
    """A pattern to learn; rows have unequal numbers of labels, so that no mean of means is the mean."""
    import torch

    ids = torch.randint(0, 40, (ROWS, 1), generator=torch.Generator().manual_seed(step % 3)) * 3
    ids = ids + torch.arange(LENGTH + 1)
    labels = ids[:, 1:].clone()
    for row in range(ROWS):
        labels[row, LENGTH - 3 * row :] = -100
    return Batch(ids[:, :-1], labels)


def trained(
    world: World | None, work: Path, parts: int = 1, stop: int = STEPS, seen: Any = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train; weights on the main worker, and metrics with the losses.

    Args:
        world: the workers.
        work: the folder for checkpoints: another call goes on from what is there.
        parts: gradient accumulation.
        stop: step after which it is interrupted.
        seen: told every step before it begins.
    """
    import torch

    from tasks.models.load import new_model
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    world = world or World()
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

    from tasks.pretrain.worker import SilentJob

    model = new_model(config(), seed=0)
    loop = Loop(model, watched, settings, (Job if world.is_main else SilentJob)("test", work), world=world)
    metrics = loop.run()
    weights = world.weights({name: parameter.detach() for name, parameter in loop.graph.trained()})
    torch.manual_seed(0)
    return weights, {name: value.value for name, value in metrics.items()}


def main() -> None:
    """All cases; results below the folder."""
    from safetensors.torch import save_file

    from tasks.training.parallel import join

    folder = Path(sys.argv[1])
    with join.joined(Parallel(nproc_per_node=2)) as world:
        for name, changes in CASES.items():
            for parts in (1, PARTS):
                case = f"{name}-{parts}"
                parallel = Parallel(nproc_per_node=world.size, **changes)
                workers = None if name == "one" else join._kind(parallel)(parallel)
                if name == "one" and not world.is_main:
                    continue
                weights, metrics = trained(workers, folder / case / "work", parts)
                if world.is_main:
                    save_file(weights, folder / case / "weights.safetensors")
                    (folder / case / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
