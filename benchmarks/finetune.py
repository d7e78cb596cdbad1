"""Finetuning beside its peers: non-padding tokens per second and peak memory of LoRA on SmolLM2-135M-Instruct.

    python -m benchmarks.finetune [--steps 4] [--rounds 3] [--batch 8]

Every trainer gets the same weights and the same chats in the same order, in turn, each in a process of its own; whether
they learn the same is in the table. The matrix-product rate that shares are taken of is measured in every process beside
the steps. trl takes part where it can be imported. Writes benchmarks/results/finetune.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.child import child
from benchmarks.tuners import TUNERS, Task

RESULTS = Path(__file__).parent / "results" / "finetune.md"
MODEL, TEXT = Path("data/smollm2.yaml"), Path("data/stdlib.yaml")
LONGEST = 256
"""Tokens of a chat; longer ones are left out, as the stage does by default."""
WARMUP = 1


def examples(base: Path, count: int) -> list[Any]:
    """The first chats of the standard library's source that fit, in an order drawn once."""
    import numpy as np
    import pyarrow.parquet as pq

    from tasks.acquire import acquire
    from tasks.data.instructions import docstring_chats
    from tasks.models.chat import encode
    from tasks.models.load import load_tokenizer

    tokenizer, found = load_tokenizer(base), []
    texts = pq.read_table(acquire(TEXT) / "stdlib.parquet", columns=["text"])["text"].to_pylist()
    for place in np.random.default_rng(0).permutation(len(texts)):
        for chat in docstring_chats(texts[place]):
            example = encode(chat, tokenizer)
            if example.labelled and len(example.labels) <= LONGEST:
                found.append(example)
        if len(found) >= count:
            break
    return found[:count]


def one(name: str, steps: int, batch: int) -> dict[str, Any]:
    """What one trainer does in this process."""
    import torch

    from tasks.acquire import place
    from tasks.finetune.lora import Lora
    from tasks.ledger.meter import own_peak_bytes
    from tasks.models.device import resolve_precision
    from tasks.models.load import read_config

    precision = resolve_precision("auto")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    rate = _products(kind)
    base = place(MODEL)
    task = Task(base, examples(base, (WARMUP + steps) * batch), batch, precision)
    rows = TUNERS[name](task)
    timed = task.examples[WARMUP * batch :]
    tokens, labelled = sum(len(e.labels) for e in timed), sum(e.labelled for e in timed)
    seconds = sum(taken for _, taken in rows[WARMUP:])
    lora, config = Lora(), read_config(base)
    flops = sum(lora.flops_per_token(config, len(e.labels), labelled / tokens) * len(e.labels) for e in timed)
    return {
        "losses": [loss for loss, _ in rows],
        "seconds": [taken for _, taken in rows],
        "tokens_per_second": tokens / seconds,
        "mfu": flops / seconds / rate,
        "peak_bytes": own_peak_bytes(),
        "precision": precision,
        "mean_tokens": tokens / len(timed),
    }


def _products(kind: Any) -> float:
    """The best of some products of two matrices, FLOP/s."""
    import torch

    left, right = torch.randn(2048, 2048, dtype=kind), torch.randn(2048, 2048, dtype=kind)
    rates = []
    for _ in range(8):
        began = time.perf_counter()
        left @ right
        rates.append(2 * 2048**3 / (time.perf_counter() - began))
    return max(rates)


def main() -> None:
    """Run every trainer in turn and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=4, help="timed ones; one more warms up")
    parser.add_argument("--batch", type=int, default=8, help="chats per step")
    parser.add_argument("--rounds", type=int, default=3, help="the median of them is shown")
    parser.add_argument("--only", nargs="+", choices=TUNERS, default=list(TUNERS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        warnings.simplefilter("ignore")
        print(json.dumps(one(chosen.one, chosen.steps, chosen.batch)))
        return
    from tasks.acquire import acquire

    acquire(MODEL)
    acquire(TEXT)
    names = [name for name in chosen.only if "trl" not in name or find_spec("trl")]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(chosen.rounds):
        for name in names:
            asked = ["--one", name, "--steps", str(chosen.steps), "--batch", str(chosen.batch)]
            found[name].append(child("finetune", *asked, ours=name.startswith("leanlm")))
            rate = found[name][-1]["tokens_per_second"]
            print(f"round {turn + 1}, {name}: {rate:,.0f} non-padding tokens/s", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    text = ["# Finetuning beside its peers", "", *_where(chosen), "", *table(found)]
    RESULTS.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(RESULTS.read_text(encoding="utf-8"))


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Markdown: the median round of every trainer (of an even number the slower of the two), and this project's beside each."""
    middle = {name: _median(rows) for name, rows in found.items()}
    ours = middle.get("leanlm") or next(iter(middle.values()))
    lines = [
        "| trainer | non-padding tokens/s | all rounds | share of the GEMM peak | leanlm / this | first step, s | "
        "peak memory | of leanlm's | last loss | largest difference of a loss |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in middle.items():
        apart = max(abs(a - b) for a, b in zip(row["losses"], ours["losses"], strict=True))
        rounds = ", ".join(f"{one['tokens_per_second']:,.0f}" for one in found[name])
        lines.append(
            f"| {name} | {row['tokens_per_second']:,.0f} | {rounds} | {row['mfu']:.1%} | "
            f"{ours['tokens_per_second'] / row['tokens_per_second']:.2f}x | {row['seconds'][0]:.1f} | "
            f"{row['peak_bytes'] / 2**20:,.0f} MiB | {row['peak_bytes'] / ours['peak_bytes']:.2f}x | "
            f"{row['losses'][-1]:.4f} | {apart:.1e} |"
        )
    said = f"{ours['mean_tokens']:.0f} tokens a chat in the mean, {ours['precision']}; curves: the same chats in the same order."
    return [*lines, "", said]


def _median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    rate = statistics.median_low(row["tokens_per_second"] for row in rows)
    return next(row for row in rows if row["tokens_per_second"] == rate)


def _where(chosen: argparse.Namespace) -> list[str]:
    from importlib.metadata import version

    from tasks.ledger.machine import describe

    machine = describe()
    libraries = [name for name in ("torch", "transformers", "peft", "trl") if find_spec(name)]
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    command = f"python -m benchmarks.finetune --steps {chosen.steps} --rounds {chosen.rounds} --batch {chosen.batch}"
    return [
        f"`{command}` on {machine['cpu']}, {machine['cores']} cores, GPU: {machine['gpu'] or 'none'}; {versions}.",
        "",
        f"LoRA, r 8, all linear layers of SmolLM2-135M-Instruct; {chosen.batch} chats a step, {chosen.steps} steps timed.",
        "",
        "Our process has glibc's allocator tuned as this project's stages do it themselves; peers run as their users would start them.",
    ]


if __name__ == "__main__":
    main()
