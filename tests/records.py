"""Files of records for tests, and the data stage run on them."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

from tasks.core.measure import Metrics
from tasks.data import Data, Tokenizer
from tasks.data.corpus import survey
from tasks.data.documents import SPLITS, Document
from tasks.data.run import run
from tasks.data.train import Train
from tasks.evaluate import Evaluate
from tests.models import job

PARAMS = Data(
    validation_fraction=0.15, test_fraction=0.2, tokenizer=Tokenizer(train=Train(vocab_size=300, max_bytes=10_000))
)


def write(path: Path, records: list[dict[str, Any]]) -> Path:
    """Records in the kind of file its name says."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, indent=2))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(records[0]))
            table.writeheader()
            table.writerows(
                {k: json.dumps(v) if isinstance(v, list) else "" if v is None else v for k, v in r.items()}
                for r in records
            )
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(records), path)
    return path


def documents(path: Path, wanted: str = "auto") -> list[Document]:
    """What a file of records is read as."""
    return list(survey(path, "text", identical=False, wanted=wanted).documents())


def stage(root: Path, source: Path, params: Data = PARAMS, instructions: Path | None = None) -> tuple[Path, Metrics]:
    """Run the stage; returns its folder and metrics."""
    out = root / "out"
    out.mkdir()
    return out, run(
        params,
        source=source,
        init=root,
        evaluate=Evaluate(max_bytes=500),
        out=out,
        job=job(root),
        instructions=instructions,
    )


def rows(out: Path, folder: str = "") -> dict[str, list[dict[str, Any]]]:
    """The rows of a folder below instructions/, by split."""
    where = out / "instructions" / folder
    return {name: [json.loads(line) for line in (where / f"{name}.jsonl").read_text().splitlines()] for name in SPLITS}


def prompt(seed: int, words: int = 30) -> str:
    """A question of made-up words."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(words)) + "?"


def edited(text: str, seed: int) -> str:
    """The same with one word replaced at an end, other case and white space."""
    words = text.upper().split()
    words[random.Random(seed).choice((0, -1))] = f"other{seed}"
    return "  ".join(words)


def families(count: int, size: int) -> list[dict[str, Any]]:
    """Records in families of near-duplicates: each an edit of the one before, among others that are alone."""
    found = []
    for family in range(count):
        text = prompt(family)
        for member in range(size):
            found.append({"prompt": text, "completion": f"answer {family} {member}"})
            text = edited(text, member)
        found.append({"prompt": prompt(10_000 + family), "completion": "alone"})
    random.Random(0).shuffle(found)
    return found


def jaccard(one: str, two: str) -> float:
    """True similarity of the sets of five words in a row."""
    sets = [
        set(zip(*(words[i:] for i in range(5)), strict=False)) for words in (one.lower().split(), two.lower().split())
    ]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])
