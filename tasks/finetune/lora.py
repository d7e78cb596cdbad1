"""LoRA: a frozen weight W learns an update B A of rank r, so that W x becomes W x + (lora_alpha / r) B A x."""

from __future__ import annotations

from tasks.finetune.shared.low_rank import LowRank


class Lora(LowRank):
    """Low-rank update of frozen weights (arXiv:2106.09685)."""
