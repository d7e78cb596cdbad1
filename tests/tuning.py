"""Short finetuning runs of a tiny model, by the loop the stage uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tasks.finetune.technique import FinetuneTechnique, Tuning
from tasks.models.chat import IGNORED
from tasks.models.load import load_model, new_model
from tasks.optimizers.adamw import AdamW
from tasks.optimizers.technique import OptimizerTechnique
from tasks.training.loop import Loop
from tasks.training.schedule import Schedule
from tasks.training.settings import Settings
from tests.models import config, job, plan

STEPS, LENGTH, LABELLED = 6, 24, 0.5
DEEP = config(num_hidden_layers=3)
"""Three layers, so that of some at a time there are others."""


def batch(step: int) -> tuple[Any, Any]:
    """Random tokens, half of them labelled; the same for the same step."""
    ids = torch.randint(0, 400, (2, LENGTH + 1), generator=torch.Generator().manual_seed(step))
    labels = ids[:, 1:].clone()
    labels[:, : int(LENGTH * (1 - LABELLED))] = IGNORED
    return ids[:, :-1], labels


def loop(
    technique: FinetuneTechnique,
    folder: Path,
    *,
    optimizer: OptimizerTechnique | None = None,
    stop: int | None = None,
    made: dict[str, Any] = DEEP,
    base: Path | None = None,
) -> tuple[Loop, Tuning]:
    """A run of six steps; `stop`: killed before that step."""
    kind = optimizer or AdamW()
    model = load_model(base).float() if base else new_model(made, seed=0)
    tuning = technique.begin(model, plan(steps=STEPS, base=base or Path("none"), optimizer=kind))
    shape = Schedule(shape="constant", warmup_steps=1)
    settings = Settings(STEPS, 1e-2, shape, 0.0, 1.0, "fp32", 1, 1, tuning.optimizer(kind))

    def dealt(step: int) -> tuple[Any, Any]:
        if step == stop:
            raise KeyboardInterrupt
        return batch(step)

    return Loop(tuning.model, dealt, settings, job(folder), hooks=tuning), tuning
