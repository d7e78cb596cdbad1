"""`torchrun -m tests.parallel_combinations FOLDER`: two steps of everything that is not refused, in one start of the workers."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.optimizers import Optimizer
from tasks.pretrain import Pretrain
from tasks.training.batch import Batch
from tasks.training.parallel import join
from tests.models import config
from tests.parallel_cases import CASES, batch

STEPS = 2

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")

PRECISIONS = ("fp32", "bf16", "fp16", "bf16_pure")
"""fp8 is refused by every machine without the hardware."""

HOOKED = ("adamw", "schedule_free")
"""Optimizers that are also tried with other ways of exchanging gradients, which change no optimizer."""


def combinations() -> dict[str, Pretrain]:
    """Name -> the parameters of two workers."""
    ways = [name for name in CASES if name != "one"]
    found = {}
    for optimizer, way, precision in product(Optimizer.techniques(), ways, PRECISIONS):
        if way in STRATEGIES or optimizer in HOOKED:
            found[f"{optimizer} {way} {precision}"] = parameters(optimizer, way, precision)
    return found


def parameters(optimizer: str, way: str, precision: str) -> Pretrain:
    """Two workers, two steps."""
    values: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 4,
        "context_length": 16,
        "precision": precision,
        "checkpoint_every": 1 if precision == "fp32" else STEPS,
        "optimizer": {"method": optimizer},
        "schedule": {"shape": "constant" if optimizer == "schedule_free" else "wsd", "warmup_steps": 0},
        "parallel": {"nproc_per_node": 2, **CASES[way]},
    }
    return Pretrain(**values)


def trained(params: Pretrain, work: Path) -> None:
    """Train; in float32 interrupted after the first step, and on from its checkpoint."""
    from tasks.models.load import new_model
    from tasks.pretrain.training import settings_of
    from tasks.pretrain.worker import SilentJob
    from tasks.training.loop import Loop

    for stop in (1, STEPS) if params.precision == "fp32" else (STEPS,):

        def watched(step: int, stop: int = stop) -> Batch:
            if step == stop:
                raise KeyboardInterrupt
            return batch(step)

        world = join.kind(params.parallel)(params.parallel)
        work.mkdir(parents=True, exist_ok=True)
        job = (Job if world.is_main else SilentJob)("test", work)
        with suppress(KeyboardInterrupt):
            model = new_model(config(), seed=0)
            loop = Loop(model, watched, settings_of(params, 0, params.precision), job, world=world)
            loop.run()
        world.agreed("the checkpoint is written")
    assert loop.progress.step == STEPS


def main() -> None:
    """Train everything accepted; what went wrong, by its name, below the folder."""
    from tasks.pretrain.conflicts import conflicts

    folder, wrong = Path(sys.argv[1]), {}
    with join.joined(Pretrain(parallel={"nproc_per_node": 2}).parallel) as everyone:
        for name, params in combinations().items():
            if list(conflicts(params)):
                continue
            try:
                trained(params, folder / name)
            except Exception:
                wrong[name] = traceback.format_exc()
        (folder / f"wrong-{everyone.rank}.json").write_text(json.dumps(wrong))


if __name__ == "__main__":
    main()
