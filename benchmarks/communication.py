"""What workers send each other: counted, by the formula, and by the kernel, beside the loss after equal steps.

`python benchmarks/communication.py [--workers 2 4] [--steps 40] [--out benchmarks/results]`

A Llama of about a million parameters learns the bytes of Python's own library; every way of sharing the work sees the same
batches. Workers are processes that talk over the loopback interface (gloo), whose counter the kernel keeps.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROWS, LENGTH = 8, 64

CASES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp, fp16": {"comm_hook": "fp16"},
    "ddp, bf16": {"comm_hook": "bf16"},
    "ddp, powersgd r=4": {"comm_hook": "powersgd", "powersgd_rank": 4},
    "zero1": {"strategy": "zero1"},
    "zero2": {"strategy": "zero2"},
    "zero3": {"strategy": "zero3"},
    "diloco, every 5": {"sync_every": 5},
    "diloco, every 20": {"sync_every": 20},
}
"""Name -> `pretrain.parallel`."""


@cache
def text() -> Any:
    """Bytes of some modules of the standard library, as ids."""
    import torch

    library = Path(sysconfig.get_paths()["stdlib"])
    found = b"".join(path.read_bytes() for path in sorted((library / "email").glob("*.py")))
    return torch.frombuffer(bytearray(found), dtype=torch.uint8).long()


def batch(step: int) -> tuple[Any, Any]:
    """Rows from places drawn anew for each step."""
    import torch

    ids = text()
    starts = torch.randint(0, len(ids) - LENGTH - 1, (ROWS,), generator=torch.Generator().manual_seed(step))
    rows = torch.stack([ids[start : start + LENGTH + 1] for start in starts.tolist()])
    return rows[:, :-1], rows[:, 1:]


def trained(world: Any, steps: int, work: Path) -> dict[str, Any]:
    """Metrics of one case, with the shapes of what was trained."""
    from tasks.core.job import Job
    from tasks.models.load import new_model
    from tasks.pretrain.worker import SilentJob
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 256,
        "hidden_size": 160,
        "intermediate_size": 480,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
    }
    settings = Settings(
        steps=steps,
        learning_rate=3e-3,
        schedule=Schedule(warmup_steps=5),
        weight_decay=0.1,
        max_grad_norm=1.0,
        precision="fp32",
        checkpoint_every=10 * steps,
        seed=1,
    )
    model = new_model(config, seed=0)
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    work.mkdir(parents=True, exist_ok=True)
    metrics = Loop(model, batch, settings, (Job if world.is_main else SilentJob)("case", work), world=world).run()
    return {"shapes": shapes, **{name: value.value for name, value in metrics.items()}}


def worker(folder: Path, steps: int) -> None:
    """All cases, in one of the workers."""
    from tasks.training.parallel import Parallel, join
    from tasks.training.world import World

    size = int(os.environ["WORLD_SIZE"])
    with join.joined(Parallel(nproc_per_node=size)) as everyone:
        results = {"one process": trained(World(), steps, folder / "one")} if everyone.is_main else {}
        for name, changes in CASES.items():
            parallel = Parallel(nproc_per_node=size, **changes)
            results[name] = trained(join.kind(parallel)(parallel), steps, folder / name.replace(" ", ""))
        if everyone.is_main:
            (folder / "results.json").write_text(json.dumps(results))


def measured(workers: int, steps: int) -> dict[str, Any]:
    """Results of all cases with so many workers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={workers}", "--rdzv_backend=c10d"]
        command += ["--rdzv_endpoint=localhost:0", "--local_addr=127.0.0.1", "-m", "benchmarks.communication"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        subprocess.run([*command, "--worker", folder, "--steps", str(steps)], cwd=ROOT, env=environment, check=True)
        found: dict[str, Any] = json.loads((Path(folder) / "results.json").read_text())
        return found


def rows(workers: int, steps: int, results: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    from tasks.training.parallel import Parallel
    from tasks.training.parallel.formula import total_bytes

    lines = []
    one = results["one process"]["train_loss"]
    for name, changes in CASES.items():
        found = results[name]
        shapes = [tuple(shape) for shape in found["shapes"]]
        formula = total_bytes(Parallel(nproc_per_node=workers, **changes), shapes, steps) / steps / workers
        counted = found["communication_bytes/training"] / steps / workers
        kernel = found["communication_bytes/loopback"] / steps / workers
        lines.append(
            f"| {name} | {workers} | {counted:,.0f} | {formula:,.0f} | {kernel:,.0f} | {kernel / counted:.2f} | "
            f"{found['optimizer_bytes']:,} | {found['train_loss']:.4f} | {found['train_loss'] - one:+.4f} |"
        )
    return lines


def table(found: dict[int, dict[str, Any]], steps: int) -> str:
    """The page, of the numbers of workers measured so far."""
    first = next(iter(found.values()))["one process"]
    lines = [
        "# What workers send each other",
        "",
        f"`python benchmarks/communication.py --workers {' '.join(map(str, found))} --steps {steps}`: a Llama of "
        f"{first['trainable_parameters']:,} parameters, {ROWS} rows of {LENGTH} bytes a step, AdamW in float32, gloo on loopback.",
        "",
        "Counted: bytes of the collectives that ran, as a ring sends them (all-reduce 2 (p-1)/p, others (p-1)/p), gradients and "
        "weights, mean over steps and workers. Kernel: what left the loopback interface during steps, by every process of the "
        "machine, headers and acknowledgements included. Optimizer bytes: of the main worker. Loss: mean of the last 20 steps "
        f"over the whole batch; one process: {first['train_loss']:.4f}.",
        "",
        "| way | workers | counted B/step/worker | formula | kernel | kernel / counted | optimizer bytes | loss | - one process |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for workers, results in found.items():
        lines += rows(workers, steps, results)
    lines += [
        "",
        "zero2 and zero3 put one more copy of the gradients on the wire than a ring would: what the kernel counts is what "
        "follows if gloo makes a reduce-scatter of an all-reduce and throws the rest away.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.steps)
        return
    found: dict[int, dict[str, Any]] = {}
    for workers in given.workers:
        found[workers] = measured(workers, given.steps)
        (given.out / "communication.md").write_text(table(found, given.steps), encoding="utf-8")


if __name__ == "__main__":
    main()
