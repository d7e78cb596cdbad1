"""Peak resident memory of finetuning steps on a real model, each way in a process of its own.

`python -m benchmarks.tuning_memory --model FOLDER [--out benchmarks/results/tuning_memory.md]`

The figure is the process's largest resident set less what was resident when libraries were loaded and before the model was:
weights in float32, gradients, optimizer, activations and passing memory of two steps of 2 x 256 tokens, half of them labelled.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.child import child as apart
from tasks.core.process import prepare

BATCH, CONTEXT, STEPS = 2, 256, 2
WAYS: dict[str, tuple[str, str]] = {
    "full, adamw": ("full", "adamw"),
    "full, galore": ("full", "galore"),
    "full, lomo": ("full", "lomo"),
    "full, adalomo": ("full", "adalomo"),
    "full, mezo": ("full", "mezo"),
    "lisa": ("lisa", "adamw"),
    "badam": ("badam", "adamw"),
    "layers": ("layers", "adamw"),
    "bitfit": ("bitfit", "adamw"),
    "lora": ("lora", "adamw"),
}
"""A way -> finetune.method and finetune.optimizer.method."""


def child(folder: Path, way: str) -> None:
    """Train, and print bytes above the libraries, seconds of the last step, and losses."""
    import time

    import psutil
    import torch

    from tasks.ledger.meter import own_peak_bytes
    from tasks.models.load import new_model, read_config
    from tasks.training.batch import Batch
    from tasks.training.kernels.prepared import prepared
    from tasks.training.loss import next_token_loss

    config = read_config(folder)
    ids = torch.zeros(1, 8, dtype=torch.long)
    tiny = {"num_hidden_layers": 1, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    next_token_loss(new_model(config | tiny, 0), ids, ids).backward()  # what libraries load when they are first used
    before = psutil.Process().memory_info().rss
    loop, tuning = _loop(folder, way)
    loop.module.train()
    losses, started = [], 0.0
    with prepared(loop.model, loop.settings):
        for step in range(STEPS):
            started = time.perf_counter()
            torch.manual_seed(step)
            tuning.before_step(step, loop.optimizer)
            losses.append(loop.gradient.compute(Batch.of(rows(step)))["loss"])
            loop.optimizer.step()
            loop.optimizer.zero_grad(set_to_none=True)
    peak = own_peak_bytes() - before
    print(json.dumps({"peak": peak, "seconds": time.perf_counter() - started, "losses": losses}))


def _loop(folder: Path, way: str) -> tuple[Any, Any]:
    """The loop of a way, and its technique at work."""
    import tempfile

    from tasks.core.job import Job
    from tasks.finetune import Finetune
    from tasks.finetune.technique import Plan
    from tasks.optimizers import Optimizer
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    method, optimizer = WAYS[way]
    technique: Any = Finetune.techniques()[method]()
    chosen: Any = Optimizer.techniques()[optimizer]()
    place = Path(tempfile.mkdtemp())
    tuning = technique.begin(technique.load(folder), Plan(folder, place, STEPS, 0, chosen))
    settings = Settings(
        STEPS, 1e-5, Schedule(warmup_steps=1), 0.0, 1.0, "fp32", 1000, 0, optimizer=tuning.optimizer(chosen)
    )
    return Loop(tuning.model, rows, settings, Job("memory", place), hooks=tuning), tuning


def rows(step: int) -> tuple[Any, Any]:
    """Tokens drawn at random, the second half of each row labelled."""
    import torch

    ids = torch.randint(0, 40_000, (BATCH, CONTEXT + 1), generator=torch.Generator().manual_seed(step))
    labels = ids[:, 1:].clone()
    labels[:, : CONTEXT // 2] = -100
    return ids[:, :-1], labels


def predicted(folder: Path, way: str) -> float:
    """The same from the config alone."""
    from math import prod

    from tasks import accounting
    from tasks.accounting.memory import activation_bytes, forward_bytes, head_gradient_bytes
    from tasks.finetune import Finetune
    from tasks.ledger.predict import constants
    from tasks.ledger.predict.resident import chunk_of_logits
    from tasks.models.load import read_config
    from tasks.optimizers import Optimizer

    method, name = WAYS[way]
    config, technique = read_config(folder), Finetune.techniques()[method]()
    optimizer: Any = Optimizer.techniques()[name]()
    shapes: Any = technique.trained_shapes(config)  # type: ignore[attr-defined]
    tokens, vocab, width = BATCH * CONTEXT, config["vocab_size"], config["hidden_size"]
    kept = activation_bytes(config, tokens, "none", 4, 0.5, CONTEXT, technique.learning(config))  # type: ignore[attr-defined]
    head = head_gradient_bytes(config) if (vocab, width) in shapes else 0
    if optimizer.zeroth_order:
        kept, head = forward_bytes(config, tokens, 4, CONTEXT), 0
    own = 4 * accounting.parameters(config) + (4 * sum(map(prod, shapes)) if method == "lora" else 0)
    logits = constants.LOGIT_BYTES * chunk_of_logits(vocab, tokens / 2)
    trained = optimizer.state_bytes(shapes) + optimizer.gradient_bytes(shapes)
    return float(own + trained + (1 + constants.FRAGMENTED["none"]) * kept + head + logits)


def main() -> None:
    """Measure every way and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tuning_memory.md"))
    parser.add_argument("--ways", nargs="*", default=list(WAYS))
    parser.add_argument("--child", default="")
    asked = parser.parse_args()
    if asked.child:
        return child(asked.model, asked.child)
    lines = [
        "| way | MiB above the libraries | predicted | predicted / measured | seconds of a step |",
        "|---|---|---|---|---|",
    ]
    for way in asked.ways:
        found = apart("tuning_memory", "--model", str(asked.model), "--child", way)
        formula, peak = predicted(asked.model, way), found["peak"]
        lines.append(
            f"| {way} | {peak / 2**20:.0f} | {formula / 2**20:.0f} | {formula / peak:.2f} | {found['seconds']:.1f} |"
        )
        print(lines[-1], f"losses {found['losses']}", flush=True)
        asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    prepare()
    main()
