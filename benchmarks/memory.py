"""Peak resident memory of training steps, each way in a process of its own, beside the prediction.

`python -m benchmarks.memory [--parameters 5000000] [--out benchmarks/results/memory.md]`

The figure is the process's largest resident set less what was resident when libraries were loaded and
before the model was built: weights, gradients, moments, activations and passing memory of three steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.child import child as apart
from tasks.core.process import prepare
from tasks.models.device import native_bf16

BATCH, CONTEXT, VOCAB, STEPS = 16, 256, 4096, 3
WAYS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "selective checkpointing": {"gradient_checkpointing": "selective"},
    "full checkpointing": {"gradient_checkpointing": "full"},
    "4 parts": {"gradient_accumulation_steps": 4},
    "full checkpointing, 4 parts": {"gradient_checkpointing": "full", "gradient_accumulation_steps": 4},
    "bf16_pure": {"precision": "bf16_pure"},
    "adamw_8bit": {"optimizer": "adamw_8bit"},
    "adafactor": {"optimizer": "adafactor"},
    "apollo": {"optimizer": "apollo"},
    "lomo": {"optimizer": "lomo"},
    "lomo, full checkpointing": {"optimizer": "lomo", "gradient_checkpointing": "full"},
}
"""What is done to save memory -> settings of the loop; optimizers by name, adamw if none."""


def settings_of(way: str) -> dict[str, Any]:
    """Settings of the loop, the optimizer as its technique."""
    from tasks.optimizers import Optimizer

    chosen = dict(WAYS[way])
    chosen["optimizer"] = getattr(Optimizer(), chosen.get("optimizer", "adamw"))
    return chosen


def blueprint(parameters: int) -> dict[str, Any]:
    """The Llama that is trained."""
    from tasks.core.schema import validate
    from tasks.design import Design

    chosen = validate(Design, {"method": "llama", "llama": {"parameters": parameters}})
    return chosen.technique.blueprint(VOCAB, Path("none"))


def child(parameters: int, way: str) -> None:
    """Train and print bytes above the libraries."""
    import tempfile

    import psutil
    import torch

    from tasks.core.job import Job
    from tasks.ledger.meter import own_peak_bytes
    from tasks.models.load import new_model
    from tasks.training.batch import Batch
    from tasks.training.kernels.prepared import prepared
    from tasks.training.loop import Loop
    from tasks.training.loss import next_token_loss
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    config = blueprint(parameters)
    tiny = config | {"num_hidden_layers": 1}
    ids = torch.zeros(1, 8, dtype=torch.long)
    next_token_loss(new_model(tiny, 0), ids, ids).backward()  # what libraries load when they are first used
    before = psutil.Process().memory_info().rss
    run = {"precision": "fp32"} | settings_of(way)
    settings = Settings(STEPS, 1e-3, Schedule(warmup_steps=1), 0.1, 1.0, checkpoint_every=1000, seed=0, **run)
    loop = Loop(new_model(config, 0), lambda step: rows(step), settings, Job("memory", Path(tempfile.mkdtemp())))
    loop.model.train()
    with prepared(loop.model, settings):
        for step in range(STEPS):
            loop.gradient.compute(Batch.of(rows(step)))
            loop.optimizer.step()
            loop.optimizer.zero_grad(set_to_none=True)
    print(own_peak_bytes() - before)


def rows(step: int) -> tuple[Any, Any]:
    """Random tokens."""
    import torch

    ids = torch.randint(0, VOCAB, (BATCH, CONTEXT + 1), generator=torch.Generator().manual_seed(step))
    return ids[:, :-1], ids[:, 1:]


def predicted(parameters: int, way: str) -> float:
    """What `leanlm plan` expects of a step."""
    from tasks.accounting import parameter_shapes
    from tasks.accounting import parameters as count
    from tasks.ledger.machine import Machine
    from tasks.ledger.predict.resident import memory_parts
    from tasks.ledger.predict.steps import Steps
    from tasks.ledger.predict.subject import Subject
    from tasks.params import Params

    config, run = blueprint(parameters), settings_of(way)
    pure, optimizer, shapes = run.get("precision") == "bf16_pure", run["optimizer"], parameter_shapes(config)
    steps = Steps(
        count=STEPS,
        tokens=BATCH * CONTEXT,
        context=CONTEXT,
        labelled=1.0,
        flops=0.0,
        elements=0.0,
        trained=count(config),
        dtype="bfloat16" if pure else "float32",
        checkpoints=0,
        state=optimizer.rounded_state_bytes(shapes) if pure else optimizer.state_bytes(shapes),
        gradients=optimizer.gradient_bytes(shapes),
        saved=count(config),
        head=True,
        parts=run.get("gradient_accumulation_steps", 1),
        checkpointing=run.get("gradient_checkpointing", "none"),
        pure=pure,
    )
    about = Subject(Params(), Machine(), 1, 1, 1, VOCAB, 3.0, 3.0, config, 4)
    parts = memory_parts(about, steps, (2 if pure else 4) * count(config))
    return parts.weights + parts.trained + parts.step


def row(parameters: int, way: str) -> str:
    """A way measured, in a process of its own, beside its prediction."""
    measured: int = apart("memory", "--parameters", str(parameters), "--child", way)
    formula = predicted(parameters, way)
    return f"| {way} | {measured / 2**20:.0f} | {formula / 2**20:.0f} | {formula / measured:.2f} |"


def main() -> None:
    """Measure every way and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, nargs="+", default=[5_000_000, 27_000_000])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/memory.md"))
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--child", default="")
    asked = parser.parse_args()
    if "bf16_pure" in asked.ways and not native_bf16():
        asked.ways.remove("bf16_pure")  # a hundred times slower here than float32
    if asked.child:
        return child(asked.parameters[0], asked.child)
    lines = [
        f"Peak resident memory above the libraries, Llamas, {BATCH} x {CONTEXT} tokens, {STEPS} steps in float32 on the CPU, "
        "AdamW where no optimizer is named (`python -m benchmarks.memory`). How much the allocator can't use "
        "was fitted to such rows.",
    ]
    for size in asked.parameters:
        lines += [
            "",
            f"**{size / 1e6:g}M parameters**",
            "",
            "| saved by | measured MiB | predicted MiB | predicted / measured |",
        ]
        lines.append("|---|---:|---:|---:|")
        for way in asked.ways:
            lines.append(row(size, way))
            asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    prepare()
    main()
