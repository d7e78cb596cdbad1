"""What the loop needs to know; names as in params.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tasks.objectives.next_token import NextToken
from tasks.objectives.technique import ObjectiveTechnique
from tasks.optimizers.adamw import AdamW
from tasks.optimizers.technique import OptimizerTechnique
from tasks.training.schedule import Schedule
from tasks.training.spikes import Spikes

WINDOW = 50
"""Losses of the last steps that are kept with a checkpoint."""


@dataclass(frozen=True)
class Settings:
    """A training run.

    Attributes:
        precision: `fp32 | bf16 | fp16 | bf16_pure | fp8`, resolved: no `auto`.
        teacher: folder of the model an objective learns from.
        compile: whether blocks are compiled, resolved.
        packed: whether rows hold sequences that attention alone mixes, none of which sees another.
        early_stopping_patience: validation losses without a better one after which the run ends at its best; None: never.
    """

    steps: int
    learning_rate: float
    schedule: Schedule
    weight_decay: float
    max_grad_norm: float
    precision: str
    checkpoint_every: int
    seed: int
    optimizer: OptimizerTechnique = field(default_factory=lambda: AdamW(beta2=0.999))
    objective: ObjectiveTechnique = field(default_factory=NextToken)
    teacher: Path | None = None
    eval_every: int = 0
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: str = "none"
    compile: bool = False
    spikes: Spikes = field(default_factory=Spikes)
    keep_checkpoints: int = 2
    packed: bool = False
    early_stopping_patience: int | None = None
