"""Run the stage compress: apply the chosen technique, then measure the original and what was saved by one ruler."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tasks.compress import Compress
from tasks.compress.workbench import Workbench
from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.evaluate import BESIDE, Evaluate, harness
from tasks.evaluate.judge import figures, judged
from tasks.evaluate.loyalty import compare
from tasks.evaluate.robustness import NOTE as MISTYPED
from tasks.evaluate.robustness import robustness
from tasks.evaluate.samples import write_samples
from tasks.evaluate.text import read_texts, score
from tasks.models.adapter import ADAPTER, is_unmerged
from tasks.models.device import computable
from tasks.models.load import (
    load_model,
    load_tokenizer,
    read_config,
    weight_bytes,
)
from tasks.models.notices import drop_notices_of_missing_kernels


def run(params: Compress, *, seed: int, evaluate: Evaluate, data: Path, finetune: Path, out: Path, job: Job) -> Metrics:
    """Compress the model of `finetune` into `out`.

    Args:
        params: the technique and its parameters.
        seed: of the technique's random choices and of the typing errors of the robustness figure.
        evaluate: how quality is measured.
        data: the data stage's folder.
        finetune: the original, a model folder.
        out: the compressed model folder, complete, with `samples.json`.
        job: what the shell lends the stage.

    Raises:
        UserError: damaged weights in `finetune`, a technique that doesn't suit them, a task of `evaluate` that can't be had.
    """
    _check(finetune, evaluate)
    drop_notices_of_missing_kernels()
    out.mkdir(parents=True, exist_ok=True)
    job.say(f"applying {params.method}")
    done = params.technique.apply(Workbench(finetune, out, data, seed, job))
    job.stop_if_over_budget(f"applying {params.method}")
    # loaded before the evaluation: running a 4-bit model repacks its weights
    compressed, tokenizer = computable(load_model(out)), load_tokenizer(out)
    parameters, nonzero = census(compressed)
    try:
        quality = _measure(compressed, tokenizer, seed=seed, evaluate=evaluate, data=data, finetune=finetune, job=job)
    except UserError as error:
        raise UserError(f"compress.{params.method}: {error.message}", error.hint) from None
    write_samples(compressed, tokenizer, data, out, evaluate)
    before, after = weight_bytes(finetune), weight_bytes(out)
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in BESIDE]
    delivered = sum(path.stat().st_size for path in files)
    return {
        **quality,
        "model_bytes": counted(after, done),
        "compression_ratio": counted(before / after, f"{before} / {after} bytes of weight files"),
        "parameters": counted(parameters),
        "nonzero_parameters": counted(nonzero, "quantized ones as dequantized"),
        "delivery_bytes": counted(delivered, "weights, config and tokenizer, uncompressed"),
    }


def _check(finetune: Path, evaluate: Evaluate) -> None:
    harness.prepare(evaluate)
    read_config(finetune)
    check_weights(finetune)
    if is_unmerged(finetune):
        check_weights(finetune / ADAPTER)


def _measure(
    compressed: Any, tokenizer: Any, *, seed: int, evaluate: Evaluate, data: Path, finetune: Path, job: Job
) -> Metrics:
    started = time.perf_counter()
    texts = read_texts(data)
    original = computable(load_model(finetune))
    before = score(original, tokenizer, texts, evaluate, job)
    after = score(compressed, tokenizer, texts, evaluate, job)
    loyalty = compare(original, compressed, tokenizer, texts, evaluate, job)
    mistyped = robustness(compressed, tokenizer, texts, evaluate, seed, job)
    return {
        "bits_per_byte_before": measured(before.bits_per_byte),
        "bits_per_byte": measured(after.bits_per_byte),
        "perplexity": measured(after.perplexity),
        "label_loyalty": measured(loyalty.label, loyalty.note),
        "probability_loyalty": measured(loyalty.probability, loyalty.note),
        "fidelity_kl_nats": measured(loyalty.kl_nats, loyalty.note),
        "robustness_bits_per_byte": measured(mistyped, MISTYPED),
        **figures(harness.run(compressed, tokenizer, data, evaluate, job)),
        **figures(judged(finetune, data, evaluate, job).tasks, "_before"),
        "evaluation_seconds": measured(time.perf_counter() - started, "both models"),
    }


def check_weights(folder: Path) -> None:
    """Read every weight of a model folder once.

    Raises:
        UserError: no weight file, one that is cut off or damaged, or a weight that is not a finite number.
    """
    from safetensors import SafetensorError, safe_open

    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: no weights (*.safetensors)", f"remove {folder} and run again")
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                bad = [name for name in file.keys() if not _finite(file.get_tensor(name))]  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            hint = f"remove {folder} and run again: it comes back from the cache or is made anew"
            raise UserError(f"{path}: damaged ({error})", hint) from None
        if bad:
            raise UserError(
                f"{path}: {len(bad)} weights hold NaN or infinity, the first is {bad[0]}",
                "the training that wrote it diverged: lower its learning_rate",
            )


def _finite(tensor: Any) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def census(model: Any) -> tuple[int, int]:
    """Parameters of a model that has not run yet, and how many of them are not zero; quantized ones as dequantized."""
    total = nonzero = 0
    for parameter in model.parameters():
        weights = parameter.data
        if getattr(parameter, "quant_state", None) is not None:
            from bitsandbytes.functional import dequantize_4bit

            weights = dequantize_4bit(weights, parameter.quant_state)
        total += weights.numel()
        nonzero += int(weights.count_nonzero())
    return total, nonzero
