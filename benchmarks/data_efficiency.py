"""Every way to choose or order the training text at equal training FLOPs: what is kept, and what is learned from it.

`python -m benchmarks.data_efficiency [--source FOLDER] [--documents N] [--steps N]` trains the same small Llama for the
same number of steps of the same tokens once per technique, and writes benchmarks/results/data_efficiency.md. One seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tasks.acquire.stdlib import Stdlib
from tasks.core.job import Job
from tasks.core.measure import Metrics
from tasks.core.process import prepare
from tasks.core.schema import validate
from tasks.data import Data
from tasks.evaluate import Evaluate
from tasks.pretrain import Pretrain

RESULT = Path(__file__).parent / "results" / "data_efficiency.md"
EVALUATE = Evaluate(max_bytes=100_000)
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
"""A Llama of 0.86 million parameters."""

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact duplicates dropped (default)": ({}, {}),
    "nothing dropped": ({"deduplication": {"method": "none"}}, {}),
    "minhash": ({"deduplication": {"method": "minhash"}}, {}),
    "rules": ({"quality": {"method": "rules"}}, {}),
    "perplexity": ({"quality": {"method": "perplexity"}}, {}),
    "dsir towards email": ({"importance": {"method": "dsir", "dsir": {"target": "*#email/*"}}}, {}),
    "mixture, tests down": ({}, {"mixture": {"test": 1, "email": 1, "json": 1, "asyncio": 1}}),
    "curriculum by length": ({}, {"curriculum": "length"}),
    "curriculum by difficulty": ({}, {"curriculum": "difficulty"}),
    "sequences grow from 32": ({}, {"warmup_length": 32}),
}
"""Technique -> changes of `data`, changes of `pretrain.sampling`."""


def main() -> None:
    """Run every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder or file of texts; default: the standard library")
    parser.add_argument("--documents", type=int, default=600, help="documents of the source that are used")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each case")
    parser.add_argument("--only", action="append", help="run only this case; repeatable")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        source = arguments.source or _stdlib(root / "source")
        rows, made = [], dict[str, tuple[Path, Metrics]]()
        for case, (data, sampling) in CASES.items():
            if arguments.only and case not in arguments.only:
                continue
            key = json.dumps(data)
            if key not in made:
                made[key] = _data(root / f"data{len(made)}", source, data, arguments.documents)
            folder, kept = made[key]
            learned = _train(root / f"model{len(rows)}", folder, sampling, arguments.steps)
            rows.append(_row(case, kept, learned))
    head = "| technique | documents | training tokens | bits per byte, test | validation loss, nats/token | FLOPs |\n"
    note = (
        f"{arguments.documents} documents, {arguments.steps} steps of 8 x 128 tokens, 0.86 M parameters. **One seed and few "
        "steps: differences of a few hundredths are noise.** Each data set has its own tokenizer, so the validation losses "
        "compare only where the training tokens are the same; bits per byte always do where the test documents are.\n"
    )
    RESULT.write_text("\n".join([f"# Data efficiency\n\n{note}\n{head}|---|---|---|---|---|---|", *rows]) + "\n")
    print(RESULT.read_text())


def _stdlib(folder: Path) -> Path:
    folder.mkdir()
    Stdlib().make(folder)
    return folder


def _data(folder: Path, source: Path, changes: dict[str, Any], documents: int) -> tuple[Path, Metrics]:
    from tasks.data.run import run

    tokenizer = {"train": {"vocab_size": CONFIG["vocab_size"], "max_bytes": 2_000_000}}
    params = validate(Data, {"max_documents": documents, "tokenizer": tokenizer, **changes})
    job = _job(folder, "data")
    return folder, run(params, source=source, init=folder, evaluate=EVALUATE, out=folder, job=job)


def _train(folder: Path, data: Path, sampling: dict[str, Any], steps: int) -> Metrics:
    from tasks.pretrain.run import run

    job = _job(folder, "pretrain")
    design = folder / "design"
    design.mkdir()
    (design / "config.json").write_text(json.dumps(CONFIG))
    values = {"steps": steps, "batch_size": 8, "context_length": 128, "eval_every": steps, "sampling": sampling}
    params = validate(Pretrain, values)
    none, out = folder / "none", folder / "out"
    none.mkdir(), out.mkdir()
    return run(params, seed=0, evaluate=EVALUATE, data=data, design=design, init=none, out=out, job=job)


def _job(folder: Path, stage: str) -> Job:
    work = folder / "work"
    work.mkdir(parents=True)
    return Job(stage, work)


def _row(case: str, kept: Metrics, learned: Metrics) -> str:
    return (
        f"| {case} | {kept['documents'].value} | {kept['train_tokens'].value:,} | {learned['bits_per_byte'].value:.3f} "
        f"| {learned['validation_loss'].value:.3f} | {learned['flops'].value:.3g} |"
    )


if __name__ == "__main__":
    prepare()
    main()
