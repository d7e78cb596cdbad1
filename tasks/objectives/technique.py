"""What every training objective can do: turn a batch into a loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.core.schema import Technique


@dataclass(frozen=True)
class Losses:
    """What a batch, or a part of one, is trained on.

    Attributes:
        total: the scalar to differentiate: a mean over labelled tokens.
        shown: what the history keeps of it, by column: "loss" is always the next token's cross-entropy in nats, so that
            objectives can be compared.
    """

    total: Any
    shown: dict[str, Any] = field(default_factory=dict)


class Objective:
    """An objective at work on one model.

    Attributes:
        modules: parts that are trained beside the model and are in checkpoints, but not in the model that comes out.
    """

    def __init__(self, modules: dict[str, Any] | None = None) -> None:
        self.modules = modules or {}

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """The loss of a batch: ids (B, T), labels (B, T) with -100 where there is none, extras with first size B."""
        raise NotImplementedError


class ObjectiveTechnique(Technique):
    """An objective. Its fields are what params.yaml may say."""

    def begin(self, model: Any, job: Job, teacher: Path | None = None) -> Objective:
        """The objective at work on `model`."""
        raise NotImplementedError
