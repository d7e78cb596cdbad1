"""The finetune stage on a tiny model and chats of many lengths."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tasks.core.schema import validate
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.finetune.run import run
from tasks.models.load import new_model, save_model
from tests.models import TEXTS, config, job, tokenizer

QUESTIONS = ["What is one and one?", "Who?", "Say it again, please, but slower.", "And one more thing: why?"]


def chat(number: int) -> list[dict[str, str]]:
    """Some turns, more or fewer."""
    turns = []
    for turn in range(1 + number % 3):
        turns += [
            {"role": "user", "content": QUESTIONS[(number + turn) % 4]},
            {"role": "assistant", "content": f"It is {number * 7 + turn}."},
        ]
    return turns


def prepare(root: Path) -> Path:
    """Write what data and pretrain leave into `root`."""
    save_model(new_model(config(), seed=0), tokenizer(), root / "pretrain")
    (root / "data" / "instructions").mkdir(parents=True)
    for name, numbers in (("train", range(20)), ("validation", range(40, 46)), ("test", range(2))):
        lines = [json.dumps({"messages": chat(number)}) + "\n" for number in numbers]
        (root / "data" / "instructions" / f"{name}.jsonl").write_text("".join(lines))
    (root / "data" / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    return root


def finetuned(base: Path, out: Path, **changes: Any) -> Any:
    """Run the stage; returns its metrics."""
    values = {"steps": 4, "batch_size": 4, "context_length": 128, "precision": "fp32", "learning_rate": 5e-3} | changes
    out.mkdir(parents=True, exist_ok=True)
    places = {"data": base / "data", "pretrain": base / "pretrain"}
    evaluate = Evaluate(context_length=64, sample_tokens=4)
    return run(validate(Finetune, values), seed=0, evaluate=evaluate, out=out, job=job(out.parent), **places)


def losses(out: Path, column: str = "loss") -> list[float]:
    """A column of the history of a run, where it has a figure."""
    with (out.parent / "work" / "history.csv").open(newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]
