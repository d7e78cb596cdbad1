"""Optimizers, one file each; pretrain chooses one by name."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.optimizers.adamw import AdamW


class Optimizer(Choice):
    """How gradients become updates."""

    method: str = "adamw"
    """Optimizer by name."""
    adamw: AdamW = AdamW()
