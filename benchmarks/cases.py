"""What `prediction.py` runs: shapes to calibrate with, and other shapes to be judged on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

COMMON: dict[str, Any] = {
    "data.source": "data/source",
    "data.test_fraction": 0.08,
    "data.max_instructions": 300,
    "data.tokenizer.train.max_bytes": 1_000_000,
    "evaluate.max_bytes": 32_768,
    "evaluate.sample_tokens": 16,
    "pretrain.steps": 8,
    "finetune.steps": 8,
    "deploy_profile.repeats": 2,
    "deploy_profile.max_new_tokens": 32,
}

CALIBRATION_VOCABULARY, HELD_OUT_VOCABULARY = 2048, 4096


@dataclass(frozen=True)
class Case:
    """One model through some stages.

    Attributes:
        name: unique.
        held_out: judged, or recorded to calibrate with.
        stages: after data and design, in the order of the lifecycle.
        changes: parameters beside `COMMON`.
    """

    name: str
    held_out: bool
    stages: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        """Tokens of its tokenizer; never the same for both kinds of case."""
        return HELD_OUT_VOCABULARY if self.held_out else CALIBRATION_VOCABULARY

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that differs from the default preset."""
        return {**COMMON, **self.changes, "data.tokenizer.train.vocab_size": self.vocabulary}


def llama(width: int, inner: int, layers: int, heads: tuple[int, int], batch: int, context: int) -> dict[str, Any]:
    """A dense decoder and its batches; `heads` of queries and of keys."""
    return {
        "design.llama.hidden_size": width,
        "design.llama.intermediate_size": inner,
        "design.llama.num_hidden_layers": layers,
        "design.llama.num_attention_heads": heads[0],
        "design.llama.num_key_value_heads": heads[1],
        **_batches(batch, context),
    }


def family(method: str, parameters: int, batch: int, context: int) -> dict[str, Any]:
    """A member of another family, sized to a budget."""
    return {"design.method": method, f"design.{method}.parameters": parameters, **_batches(batch, context)}


def _batches(batch: int, context: int) -> dict[str, Any]:
    return {"pretrain.batch_size": batch, "pretrain.context_length": context, "finetune.batch_size": max(2, batch // 2)}


FLOAT32 = {"pretrain.precision": "fp32", "finetune.precision": "fp32"}
FULL = {"finetune.method": "full"}
WHOLE = ("pretrain", "finetune", "compress", "deploy_profile")

CALIBRATION = (
    Case("dense 256x6", False, WHOLE, llama(256, 704, 6, (4, 2), 8, 256)),
    Case("dense 128x4", False, ("pretrain", "finetune", "compress"), llama(128, 384, 4, (2, 1), 16, 128) | FULL),
    Case("dense 384x5", False, ("pretrain", "finetune", "compress"), llama(384, 1024, 5, (6, 3), 4, 256)),
    Case("dense 192x8 fp32", False, ("pretrain", "finetune"), llama(192, 512, 8, (3, 1), 8, 128) | FLOAT32),
    Case("olmo3", False, ("pretrain",), family("olmo3", 2_000_000, 8, 128)),
    Case("deepseek_v3", False, ("pretrain",), family("deepseek_v3", 2_000_000, 8, 128)),
    Case("mixtral", False, ("pretrain",), family("mixtral", 2_000_000, 8, 128)),
    Case("mamba2", False, ("pretrain",), family("mamba2", 1_500_000, 4, 128)),
)

HELD_OUT = (
    Case("dense 320x5", True, WHOLE, llama(320, 896, 5, (5, 5), 6, 192)),
    Case("dense 192x10", True, ("pretrain", "finetune", "compress"), llama(192, 640, 10, (3, 3), 12, 160) | FULL),
    Case("dense 512x3", True, ("pretrain", "finetune", "compress"), llama(512, 1280, 3, (8, 2), 4, 128)),
    Case("dense 96x12", True, ("pretrain",), llama(96, 256, 12, (3, 1), 8, 192)),
    Case("dense 256x4 fp32", True, ("pretrain", "finetune"), llama(256, 768, 4, (4, 1), 2, 512) | FLOAT32),
    Case("dense 448x6", True, WHOLE, llama(448, 1216, 6, (7, 1), 8, 96)),
    Case("olmo3", True, ("pretrain",), family("olmo3", 4_000_000, 4, 192)),
    Case("deepseek_v3", True, ("pretrain",), family("deepseek_v3", 3_500_000, 4, 192)),
    Case("mixtral", True, ("pretrain",), family("mixtral", 4_000_000, 4, 192)),
    Case("mamba2", True, ("pretrain",), family("mamba2", 2_500_000, 4, 192)),
    Case("qwen3_moe, never seen", True, ("pretrain",), family("qwen3_moe", 3_000_000, 4, 160)),
)

SMALL = {"pretrain.steps": 2, "finetune.steps": 2, "evaluate.max_bytes": 2048, "evaluate.sample_tokens": 4}

QUICK = (
    Case("dense 64x2", False, ("pretrain",), llama(64, 128, 2, (2, 1), 2, 64) | SMALL),
    Case("dense 64x3", True, ("pretrain", "finetune"), llama(64, 192, 3, (1, 1), 3, 48) | SMALL),
)
"""For tests of the benchmark itself."""
