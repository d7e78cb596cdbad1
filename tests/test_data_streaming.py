"""The data stage in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE_BYTES = 40_000_000
ALLOWED_BYTES = SOURCE_BYTES // 5

CODE = """
import sys
from pathlib import Path
import numpy, tokenizers, transformers, pyarrow.parquet
from tasks.core.job import Job
from tasks.data import Data, Tokenizer
from tasks.data.run import run
from tasks.data.train import Train
from tasks.evaluate import Evaluate

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def stage(source, name):
    out, work = Path(name), Path(name + "_work")
    out.mkdir(), work.mkdir()
    params = Data(tokenizer=Tokenizer(train=Train(vocab_size=300, max_bytes=50_000)))
    run(params, source=Path(source), init=out, evaluate=Evaluate(max_bytes=1000), out=out, job=Job("data", work))

stage("small.jsonl", "warm")  # what the libraries take once, whatever the corpus
before = peak()
stage("large.jsonl", "out")
print(peak() - before)
"""


def write(path: Path, size: int) -> None:
    """Records of 16 kB, no two alike, that tokenize fast: few words, many times."""
    with path.open("w") as file:
        for number in range(size // 16_000):
            file.write(json.dumps({"text": f"{number} " + "the same old words " * 842}) + "\n")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """A single file of records five times larger than what the process may grow by, tokenization included."""
    write(tmp_path / "small.jsonl", 4_000_000)
    write(tmp_path / "large.jsonl", SOURCE_BYTES)
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env={"PYTHONPATH": str(root), "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < ALLOWED_BYTES
