"""The finetune stage on a tiny model and rows of every kind."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.finetune.conflicts import dealer
from tasks.finetune.lesson import Given
from tasks.finetune.run import run
from tasks.models.load import load_model, new_model, save_model
from tests.models import TEXTS, config, job, tokenizer

ASKED = [{"role": "user", "content": "Is it so?"}]
YES, NO = ([{"role": "assistant", "content": text}] for text in ("yes", "no, no"))
PAIR = {"prompt": ASKED, "chosen": YES, "rejected": NO}
ROWS: dict[str, list[Any]] = {
    "preferences": [PAIR] * 4,
    "unpaired": [{"prompt": ASKED, "completion": text, "label": text is YES} for text in (YES, NO)] * 2,
    "verifiable": [{"prompt": ASKED, "answer": "yes"}] * 4,
}
OBJECTIVES = [name for name in Finetune().objective.techniques() if name != "sft"]
SIDED = [name for name in OBJECTIVES if name != "grpo"]
SHORT = {"num_generations": 4, "max_completion_length": 8, "rewards": ["similarity"]}


def prepare(root: Path) -> Path:
    """What data and pretrain leave, tiny, with rows of every kind."""
    save_model(new_model(config(), seed=0), tokenizer(), root / "pretrain")
    for folder, rows in {".": [{"messages": [*ASKED, *YES]}], **ROWS}.items():
        (root / "data" / "instructions" / folder).mkdir(parents=True, exist_ok=True)
        for name in ("train", "validation", "test"):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (root / "data" / "instructions" / folder / f"{name}.jsonl").write_text(text)
    (root / "data" / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    return root


def finetuned(base: Path, folder: Path, objective: str, fields: Any = None, place: Any = None, **changes: Any) -> Any:
    """Run the stage; returns its metrics."""
    values = {"steps": 3, "batch_size": 2, "context_length": 64, "precision": "fp32", "learning_rate": 5e-3} | changes
    chosen = {"method": objective, **({objective: fields} if fields else {})}
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    return run(
        Finetune(**values, objective=chosen),
        seed=0,
        evaluate=Evaluate(context_length=64, sample_tokens=4),
        data=base / "data",
        pretrain=base / "pretrain",
        out=out,
        job=place or job(folder),
    )


def history(folder: Path) -> list[dict[str, float]]:
    """The rows a run left."""
    with (folder / "work" / "history.csv").open(encoding="utf-8") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def given(base: Path, folder: Path, **changes: Any) -> Given:
    """What an objective is given."""
    fields: Any = {"context_length": 64, "batch_size": 2, "seed": 0, "precision": "fp32"} | changes
    loaded = load_model(base / "pretrain")
    deal = partial(dealer, Finetune(batch_size=fields["batch_size"]), seed=fields["seed"], packed=False)
    return Given(
        data=base / "data",
        tokenizer=tokenizer(),
        job=job(folder),
        reload=lambda: loaded,
        packed=False,
        deal=deal,
        **fields,
    )
