"""Tiny real parts for tests: a tokenizer trained on a few lines, a Llama built from config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tasks.core.job import Job
from tasks.data.train import Train
from tasks.finetune.technique import FinetuneTechnique, Plan, Tuning
from tasks.ledger.machine import Machine
from tasks.optimizers.adamw import AdamW

TEXTS = [
    "def add(first, second):\n    return first + second\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n",
    "for name in sorted(names):\n    print(name, len(name))\n",
    "The quick brown fox jumps over the lazy dog. 0123456789 äöü — €\n",
] * 4

MACHINE = Machine(
    gemm_flops_per_second={"float32": 2e11, "bfloat16": 1e12},
    bandwidth_bytes_per_second=3e10,
    host_bandwidth_bytes_per_second=3e10,
    disk_bytes_per_second=1e9,
    native_bf16=True,
    cores=2,
)
"""Two cores of a server with matrix units, for predictions that must not depend on where the tests run."""


def tokenizer(vocab_size: int = 400) -> Any:
    """A byte-level BPE tokenizer with ChatML."""
    return Train(vocab_size=vocab_size).make(TEXTS, Path())


def config(**changes: Any) -> dict[str, Any]:
    """The blueprint of a tiny Llama."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | changes


def job(folder: Path, stage: str = "test") -> Job:
    """A job with a place to work."""
    (folder / "work").mkdir(parents=True, exist_ok=True)
    return Job(stage, folder / "work")


def plan(**changes: Any) -> Plan:
    """What a finetuning technique is told of its run."""
    return replace(Plan(Path("none"), Path(mkdtemp()), steps=4, seed=0, optimizer=AdamW()), **changes)


def adapted(technique: FinetuneTechnique, model: Any) -> Any:
    """`model` as the finetune stage adapts it."""
    return begun(technique, model).model


def begun(technique: FinetuneTechnique, model: Any, **changes: Any) -> Tuning:
    """A technique at work on `model`, with a folder of its own."""
    return technique.begin(model, plan(**changes))
