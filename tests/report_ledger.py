"""A whole lifecycle's files for the report's tests: values of the size they really have, and samples that mean harm."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from flows.report import load
from tasks import params
from tasks.core.measure import Metrics, counted, measured, missing, modelled
from tasks.ledger import report

STAGES = tuple(params.STAGES)
NO_METER = "no energy meter readable"
NO_DEVICE = "no CUDA device"
PRIVATE = Path("/", "home", "someone", "leanlm", "work", "out")
"""Where nobody who reads a report should learn that it was."""


OWN: dict[str, Metrics] = {
    "data": {
        "documents": counted(1731), "duplicates_dropped": counted(12), "train_bytes": counted(27_918_233),
        "bytes_per_token": counted(3.4127, "test split"),
        "gzip_bits_per_byte": measured(2.0717, "262144 held-out bytes"),
        "xz_bits_per_byte": measured(1.8125, "262144 held-out bytes"),
    },
    "design": {
        "parameters": counted(5_326_592), "training_flops_per_token": counted(41_811_968, "context of 1024 tokens"),
        "kv_cache_bytes_per_token": counted(3072), "model_bytes/float32": counted(21_306_368, "weights alone"),
    },
    "pretrain": {
        "parameters": counted(5_326_592), "tokens": counted(2_457_600), "flops": counted(9.13e13), "mfu": measured(0.4312),
        "training_seconds": measured(371.2), "train_loss": measured(2.4411), "validation_loss": measured(2.5127),
    },
    "finetune": {"trainable_parameters": counted(131_072), "adapter_bytes": counted(526_336), "flops": counted(6.4e12)},
    "compress": {"compression_ratio": counted(2.3905), "label_loyalty": measured(0.9817), "flops": counted(2.1e12)},
    "deploy_profile": {
        "time_to_first_token_seconds/transformers": measured(0.0391), "time_to_first_token_seconds/llama_cpp": measured(0.00481),
        "inter_token_latency_p50_seconds/transformers": measured(0.0112), "inter_token_latency_p50_seconds/llama_cpp": measured(0.000913),
        "inter_token_latency_p95_seconds/transformers": measured(0.0147), "inter_token_latency_p95_seconds/llama_cpp": measured(0.00118),
        "inter_token_latency_p99_seconds/transformers": measured(0.0203), "inter_token_latency_p99_seconds/llama_cpp": measured(0.00162),
        "decode_tokens_per_second/transformers": measured(88.91, "5 repeats, 87.2 to 90.4"),
        "decode_tokens_per_second/llama_cpp": measured(1052.3, "5 repeats, 1031 to 1071"),
        "peak_memory_bytes/transformers": measured(612_368_384), "peak_memory_bytes/llama_cpp": measured(71_303_168),
        "energy_per_token_joules/transformers": missing(NO_METER), "energy_per_token_joules/llama_cpp": missing(NO_METER),
        "speedup/llama_cpp": measured(11.836), "load_seconds/llama_cpp": measured(0.0312), "flops": counted(1.31e11),
        "model_bytes/safetensors": counted(8_912_896), "model_bytes/F16": counted(10_730_112),
        "model_bytes/Q8_0": counted(5_791_872, f"written under {PRIVATE}"),
        "model_bytes/Q4_0": counted(3_401_216), "delivery_bytes": counted(5_791_872),
    },
}  # fmt: skip
"""What each stage has of its own."""


def ledger() -> dict[str, Metrics]:
    """Six stages with values of the size they really have."""
    wall = {"data": 21.4, "design": 1.9, "pretrain": 412.6, "finetune": 74.2, "compress": 38.9, "deploy_profile": 66.1}
    common = {
        stage: {
            "wall_seconds": measured(seconds),
            "cpu_seconds": measured(seconds * 1.8, "user and system, reaped child processes included"),
            "peak_memory_bytes": measured(int(4e8 + seconds * 3e6), "largest resident set of one process"),
            "attempts": counted(2 if stage == "pretrain" else 1),
            "peak_device_memory_bytes": missing(NO_DEVICE),
            "energy_joules": missing(NO_METER)
            if stage == "design"
            else modelled(seconds * 14.4, "cpu_seconds x 8 W per core"),
            "communication_bytes": counted(0, "one worker"),
        }
        for stage, seconds in wall.items()
    }
    quality = {"pretrain": 1.9312, "finetune": 1.9644, "compress": 1.9671}
    model = {"pretrain": 21_306_368, "finetune": 21_306_368, "compress": 8_912_896}
    after = {s: {"bits_per_byte": measured(quality[s]), "model_bytes": counted(model[s])} for s in quality}
    return {stage: {**common[stage], **OWN[stage], **after.get(stage, {})} for stage in STAGES}


def predictions(metrics: Metrics) -> Metrics:
    """A guess for every value that has one, off by a factor that grows with the name."""
    names = [n for n in ("wall_seconds", "cpu_seconds", "peak_memory_bytes", "flops", "model_bytes") if n in metrics]
    guesses = {n: float(metrics[n].value or 0) * (0.6 + len(n) / 20) for n in names}
    banded = ("wall_seconds", "peak_memory_bytes")
    bounds = {n: (0.8 * guess, 1.25 * guess) if n in banded else (None, None) for n, guess in guesses.items()}
    return {n: modelled(guess, "a formula", *bounds[n]) for n, guess in guesses.items()}


def document(stage: str, metrics: Metrics) -> dict[str, Any]:
    """A report as the runner writes it."""
    return {
        "stage": stage, "key": f"{stage}-3f9a1c20b7", "invocation": None, "finished": f"2025-03-0{STAGES.index(stage) + 1}T12:30:05+00:00",
        "machine": {"cpu": "A processor of two cores", "cores": 2, "memory_bytes": 8_254_390_272, "hostname": "secret-box", "gpu": []},
        "versions": {"python": "3.11.9", "torch": "2.13.0"},
        "metrics": report.to_json(metrics), "predicted": report.to_json(predictions(metrics)),
    }  # fmt: skip


def history(stage: str, steps: int) -> None:
    """A falling, jittering loss, evaluated now and then."""
    lines = ["step,loss,learning_rate,grad_norm,tokens_per_second,mfu,seconds,validation_loss"]
    for step in range(steps):
        loss = 2.4 + 5.9 * math.exp(-step / (steps / 7)) + 0.12 * math.sin(step * 12.9898) * math.cos(step * 78.233)
        validation = f"{loss + 0.08:.4f}" if step % 100 == 99 else ""
        lines.append(f"{step},{loss:.4f},0.003,1.1,6600,0.61,{step * 0.62:.2f},{validation}")
    folder = report.FOLDER / "history"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stage}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


PROMPTS = ('def read_text(path):\n    """', "import os\n")
QUESTION = "What is one and one?"
HOSTILE = "</pre><script>alert('x')</script>\x00\x1b[31m & <b>\ud800"


def samples(stage: str) -> None:
    """Continuations as a stage leaves them; one tries to break out of the page."""
    folder = load.ARTIFACTS / stage
    folder.mkdir(parents=True, exist_ok=True)
    texts = [f'Return the text of a file, {stage}."""\n    return open(path).read()\n', HOSTILE]
    entries = [{"prompt": prompt, "text": text} for prompt, text in zip(PROMPTS, texts, strict=True)]
    entries.append({"prompt": QUESTION, "text": f"Answered after {stage}.", "reference": f"Two. {HOSTILE}"})
    (folder / "samples.json").write_text(json.dumps(entries), encoding="utf-8")


LOCK = """schema: '2.0'
stages:
  finetune:
    cmd: python -m tasks finetune
    params:
      params.yaml:
        finetune.method: lora
        finetune.lora:
          r: 16
    outs:
    - path: artifacts/finetune
      hash: md5
      md5: 0123456789abcdef0123456789abcdef.dir
      size: 22000000
      nfiles: 9
"""
