"""A model folder scored as it was saved, by the ruler every stage shares."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.core.measure import Metrics, Value, counted, measured, missing
from tasks.evaluate import SCORE, Evaluate, harness
from tasks.evaluate.harness import Result
from tasks.evaluate.samples import write_samples
from tasks.evaluate.text import learned_share, read_texts, score
from tasks.models.device import computable
from tasks.models.load import check_context, load_model, load_tokenizer, weight_bytes

READ = ("heldout.jsonl", "instructions/test.jsonl", "instructions/verifiable/test.jsonl")
"""What of the data a model is judged on."""


@dataclass(frozen=True)
class Quality:
    """What a model is worth.

    Attributes:
        bits_per_byte, perplexity: of the held-out text.
        bytes: of that text.
        tasks: a figure for every metric of every task.
    """

    bits_per_byte: float
    perplexity: float
    bytes: int
    tasks: list[Result]


def judge(folder: Path, data: Path, params: Evaluate, job: Job, before: Path | None = None) -> Metrics:
    """Load the model of `folder` again, score it on text and tasks, and leave `samples.json` and `score.json` beside it.

    Args:
        folder: the model.
        data: the data stage's folder.
        params: how quality is measured.
        job: the shell's loan.
        before: folder of the model that `folder` was made of: what was gained and what was forgotten is told as well.
    """
    check_context("evaluate.context_length", params.context_length, folder)
    model, tokenizer = computable(load_model(folder)), load_tokenizer(folder)
    started = time.perf_counter()
    quality = _measure(model, tokenizer, data, params, job)
    seconds = time.perf_counter() - started
    write_samples(model, tokenizer, data, folder, params)
    kept = {"ruler": _ruler(data, params), "quality": asdict(quality)}
    (folder / SCORE).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    job.say(f"{quality.bits_per_byte:.3f} bits per byte" + "".join(map(_said, quality.tasks)))
    del model  # its memory is the next one's
    return {
        "bits_per_byte": measured(quality.bits_per_byte, f"{quality.bytes} held-out bytes"),
        "perplexity": measured(quality.perplexity),
        "evaluation_seconds": measured(seconds),
        "model_bytes": counted(weight_bytes(folder)),
        **figures(quality.tasks),
        **({} if before is None else _changed(quality, judged(before, data, params, job), learned_share(data))),
    }


def judged(folder: Path, data: Path, params: Evaluate, job: Job) -> Quality:
    """What `judge` found of the model in `folder`: as it left it there, if by this ruler; else measured now."""
    path, ruler = folder / SCORE, _ruler(data, params)
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["ruler"] == ruler:
            return Quality(**kept["quality"] | {"tasks": [Result(**task) for task in kept["quality"]["tasks"]]})
    return _measure(computable(load_model(folder)), load_tokenizer(folder), data, params, job)


def _measure(model: Any, tokenizer: Any, data: Path, params: Evaluate, job: Job) -> Quality:
    text = score(model, tokenizer, read_texts(data), params, job)
    return Quality(text.bits_per_byte, text.perplexity, text.bytes, harness.run(model, tokenizer, data, params, job))


def _ruler(data: Path, params: Evaluate) -> dict[str, Any]:
    """What two figures must share to be compared."""
    found = [data / name for name in READ]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in found if path.exists())).hexdigest()
    return {"evaluate": params.model_dump(mode="json"), "held_out": digest}


def figures(results: Iterable[Result], when: str = "") -> Metrics:
    """Results as the ledger names them; `when`: "_before" of a stage's input."""
    return {f"task_{'score' if result.rises else 'loss'}{when}/{result.name}": _value(result) for result in results}


def _value(result: Result) -> Value:
    return missing(result.note) if result.value is None else measured(result.value, result.note)


def _changed(after: Quality, before: Quality, learned: float) -> Metrics:
    """What was gained and forgotten, where a share of the held-out text is of the records that were learned from."""
    forgotten, note = (
        after.bits_per_byte - before.bits_per_byte,
        "bits_per_byte - bits_per_byte_before; below 0: gained",
    )
    if learned:
        note += (
            f"; {learned:.0%} of the held-out text are records like those finetuning learns from, and on them it gains: "
            "data.source of general text, and these in data.instructions, would tell what is forgotten"
        )
    return {
        "bits_per_byte_before": measured(before.bits_per_byte, f"{before.bytes} held-out bytes"),
        "forgetting_bits_per_byte": measured(forgotten, note),
        **figures(before.tasks, "_before"),
    }


def _said(result: Result) -> str:
    return "" if result.value is None else f", {result.name} {result.value:.3f}"
