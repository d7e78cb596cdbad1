"""Pretraining beside its peers: tokens per second of the same model on the same tokens, in turn, each in a process of its own.

    python -m benchmarks.pretrain [--sizes 5.5M 27M 135M] [--rounds 2]

litgpt takes part where it can be imported (`pip install --no-deps --target work/peers litgpt lightning lightning-utilities
torchmetrics pytorch-lightning jsonargparse typeshed_client`, then `PYTHONPATH=work/peers`). The matrix-product rate that
shares are taken of is measured in every process beside the steps. Writes benchmarks/results/pretrain.md.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.child import child
from benchmarks.contenders import CONTENDERS

RESULTS = Path(__file__).parent / "results" / "pretrain.md"
WARMUP = 1
SIZES: dict[str, dict[str, Any]] = {
    "5.5M": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "layers": 6,
        "heads": 4,
        "groups": 2,
        "batch": 16,
        "steps": 6,
    },
    "27M": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "layers": 8,
        "heads": 8,
        "groups": 4,
        "batch": 8,
        "steps": 4,
    },
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "layers": 30,
        "heads": 9,
        "groups": 3,
        "batch": 4,
        "steps": 3,
    },
}
"""Sizes of the model, sequences per step, steps that are timed. The last is SmolLM2-135M's shape, its vocabulary as well."""
LENGTH = 256


def config_of(size: str) -> dict[str, Any]:
    """A Llama of that size."""
    shape = SIZES[size]
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 49152 if size == "135M" else 4096,
        "hidden_size": shape["hidden_size"],
        "intermediate_size": shape["intermediate_size"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["groups"],
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def tokens_of(size: str) -> Any:
    """Ids (steps, batch, length + 1): the bytes of this project's own sources, pairs of them, modulo the vocabulary."""
    import numpy as np
    import torch

    shape = SIZES[size]
    text = b"".join(path.read_bytes() for path in sorted(Path("tasks").rglob("*.py")))
    ids = np.frombuffer(text[: len(text) // 2 * 2], dtype="<u2").astype(np.int64) % config_of(size)["vocab_size"]
    count = (WARMUP + shape["steps"]) * shape["batch"]
    rows = np.stack([np.take(ids, range(i * LENGTH, (i + 1) * LENGTH + 1), mode="wrap") for i in range(count)])
    return torch.from_numpy(rows).reshape(WARMUP + shape["steps"], shape["batch"], LENGTH + 1)


def one(name: str, size: str) -> dict[str, Any]:
    """What one contender does in this process."""
    import torch
    from psutil import Process

    from tasks.accounting import training_flops_per_token
    from tasks.ledger.meter import own_peak_bytes
    from tasks.models.device import resolve_precision

    precision = resolve_precision("auto")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = torch.randn(2048, 2048, dtype=kind), torch.randn(2048, 2048, dtype=kind)
    rates = []
    for _ in range(8):
        began = time.perf_counter()
        left @ right
        rates.append(2 * 2048**3 / (time.perf_counter() - began))
    before = Process().memory_info().rss
    rows = CONTENDERS[name](config_of(size), tokens_of(size), precision)
    timed = [seconds for _, seconds in rows[WARMUP:]]
    tokens = SIZES[size]["batch"] * LENGTH
    return {
        "losses": [loss for loss, _ in rows],
        "tokens_per_second": tokens / median(timed),
        "spread": (max(timed) - min(timed)) / median(timed),
        "mfu": tokens * training_flops_per_token(config_of(size), LENGTH) / median(timed) / max(rates),
        "first_seconds": rows[0][1],
        "peak_bytes": own_peak_bytes() - before,
        "precision": precision,
    }


def main() -> None:
    """Run every contender in turn and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", nargs=2, metavar=("CONTENDER", "SIZE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        warnings.simplefilter("ignore")
        print(json.dumps(one(*chosen.one)))
        return
    names = [name for name in CONTENDERS if name != "litgpt" or find_spec("litgpt")]
    lines = []
    for size in chosen.sizes:
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for turn in range(chosen.rounds):
            for name in names:
                found[name].append(child("pretrain", "--one", name, size, ours=name.startswith("leanlm")))
                print(
                    f"{size}, round {turn + 1}, {name}: {found[name][-1]['tokens_per_second']:,.0f} tokens/s",
                    flush=True,
                )
        lines += table(size, found)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(["# Pretraining beside its peers", "", _where(), "", *lines]) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def table(size: str, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Markdown: the median round of every contender, and this project's rate beside each."""
    middle = {
        name: sorted(rows, key=lambda row: row["tokens_per_second"])[len(rows) // 2] for name, rows in found.items()
    }
    best = max(middle[name]["tokens_per_second"] for name in middle if name.startswith("leanlm"))
    reference = middle["leanlm"]["losses"]
    lines = [
        f"## {size}, batch {SIZES[size]['batch']} x {LENGTH}, {middle['leanlm']['precision']}",
        "",
        "| loop | tokens/s | spread of steps | share of the GEMM peak | best of leanlm / this | first step, s | peak memory above libraries | last loss | largest difference of a loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in middle.items():
        apart = max(abs(a - b) for a, b in zip(row["losses"], reference, strict=True))
        lines.append(
            f"| {name} | {row['tokens_per_second']:,.0f} | {row['spread']:.0%} | {row['mfu']:.1%} | "
            f"{best / row['tokens_per_second']:.2f}x | {row['first_seconds']:.1f} | {row['peak_bytes'] / 2**20:,.0f} MiB | "
            f"{row['losses'][-1]:.4f} | {apart:.1e} |"
        )
    return [*lines, ""]


def _where() -> str:
    from importlib.metadata import version

    from tasks.ledger.machine import describe

    machine = describe()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return f"`python -m benchmarks.pretrain` on {machine['cpu']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}; {versions}."


if __name__ == "__main__":
    main()
