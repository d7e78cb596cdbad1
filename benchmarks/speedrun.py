"""The speed run: bits per byte of the default's held-out text after 240 seconds of training on this machine.

    python -m benchmarks.speedrun [--seconds 240] [-S pretrain.learning_rate=0.01 ...]

Takes the default preset (or what -S changes of it) and the text of artifacts/data, which `leanlm run` or
`python -m tasks data` makes. A few steps on a model that is thrown away tell how many fit; then the clock runs from the new
model to the last step, whatever is compiled included; what takes longer has no score. Prints one JSON object, last of all.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tasks.core.job import Job
from tasks.core.process import prepare
from tasks.core.schema import validate
from tasks.evaluate.judge import judge
from tasks.ledger import machine
from tasks.models.load import count_parameters, load_tokenizer, new_model, save_model
from tasks.params import Params, override
from tasks.pretrain.training import train

DATA = Path("artifacts/data")
TRIAL_STEPS = 8
RESERVE = 0.94
"""Share of the time that is planned with: steps vary."""


def main() -> None:
    """Plan, train, evaluate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("-S", dest="changes", action="append", default=[], metavar="NAME=VALUE")
    chosen = parser.parse_args()
    if not (DATA / "train.bin").exists():
        raise SystemExit(f"{DATA} is missing: `python -m tasks data` makes it")
    changes = {name: yaml.safe_load(value) for name, _, value in (each.partition("=") for each in chosen.changes)}
    values = override(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")), changes)
    params = validate(Params, values)
    steps = int(RESERVE * chosen.seconds / _seconds_a_step(params))
    print(f"{steps} steps planned", file=sys.stderr)
    print(json.dumps(_run(params, steps, chosen.seconds) | {"changes": changes}, indent=1))


def _blueprint(params: Params) -> dict[str, Any]:
    found: dict[str, Any] = params.design.technique.blueprint(len(load_tokenizer(DATA / "tokenizer")), Path("none"))
    return found


def _seconds_a_step(params: Params) -> float:
    with tempfile.TemporaryDirectory() as folder:
        # shorter than a compiler takes: the plain path's rate is planned with, and compiling is free to beat it
        short = params.pretrain.model_copy(update={"steps": TRIAL_STEPS, "compile": "off"})
        job = Job("speedrun", Path(folder))
        train(new_model(_blueprint(params), params.seed), short, params.seed, DATA, None, job)
        rows = job.history.read_text(encoding="utf-8").splitlines()
    columns = rows[0].split(",")
    times = [float(row.split(",")[columns.index("seconds")]) for row in rows[1:]]
    return (times[-1] - times[1]) / (len(times) - 2)


def _run(params: Params, steps: int, seconds: float) -> dict[str, Any]:
    pretrain = params.pretrain.model_copy(
        update={"steps": steps, "checkpoint_every": 10**9, "eval_every": max(1, steps // 8)}
    )
    rates = machine.measure().gemm_flops_per_second
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        began = time.perf_counter()
        model = new_model(_blueprint(params), params.seed)
        job = Job("speedrun", Path(folder), gemm_flops_per_second=rates)
        metrics = train(model, pretrain, params.seed, DATA, None, job)
        took = time.perf_counter() - began
        save_model(model, load_tokenizer(DATA / "tokenizer"), out)
        quality = judge(out, DATA, params.evaluate, Job("speedrun", Path(folder)))
    report = json.loads(Path("reports/data.json").read_text(encoding="utf-8"))["metrics"]
    score = quality["bits_per_byte"].value
    return {
        "bits_per_byte": score if took <= seconds else None,
        "too_late": None if took <= seconds else score,
        "gzip": report["gzip_bits_per_byte"]["value"],
        "xz": report["xz_bits_per_byte"]["value"],
        "seconds": took,
        "steps": steps,
        "tokens": metrics["tokens"].value,
        "parameters": count_parameters(model),
        "mfu": metrics["mfu"].value,
        "machine": machine.describe()["cpu"],
    }


if __name__ == "__main__":
    prepare()
    main()
