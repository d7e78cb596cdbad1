"""A model folder scored as it was saved, by the ruler every stage shares."""

from __future__ import annotations

import time
from pathlib import Path

from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.evaluate import Evaluate
from tasks.evaluate.samples import write_samples
from tasks.evaluate.text import read_texts, score
from tasks.models.device import computable
from tasks.models.load import check_context, load_model, load_tokenizer, weight_bytes


def judge(folder: Path, data: Path, params: Evaluate, job: Job) -> Metrics:
    """Load the model of `folder` again, score it on the held-out text, and leave `samples.json` beside it."""
    check_context("evaluate.context_length", params.context_length, folder)
    model, tokenizer = computable(load_model(folder)), load_tokenizer(folder)
    started = time.perf_counter()
    result = score(model, tokenizer, read_texts(data), params, job)
    seconds = time.perf_counter() - started
    write_samples(model, tokenizer, data, folder, params)
    job.say(f"{result.bits_per_byte:.3f} bits per byte")
    return {
        "bits_per_byte": measured(result.bits_per_byte, f"{result.bytes} held-out bytes"),
        "perplexity": measured(result.perplexity),
        "evaluation_seconds": measured(seconds),
        "model_bytes": counted(weight_bytes(folder)),
    }
