"""What every training objective can do: turn a batch into a loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.core.measure import Metrics
from tasks.core.schema import Technique
from tasks.training.batch import Batch


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
        ahead: labels behind the next one that a position's cost depends on; FLOPs are counted from there on.
        outside: whether something is computed beside the graph, so that `spent` is asked for.
        outside_is: what that is, for a person.
    """

    ahead: int = 0
    outside: bool = False
    outside_is: str = "the teacher's wherever it was asked"

    def __init__(self, modules: dict[str, Any] | None = None) -> None:
        self.modules = modules or {}

    def prepare(self, batch: Batch) -> Batch:
        """`batch` with what the loss needs beside it: outside of the graph, in no step's arithmetic, one part at a time."""
        return batch

    def rehearsal(self, inputs: Any) -> dict[str, Any]:
        """Extras of the shapes `prepare` would add for ids (B, T), without their values: FLOPs are counted on them."""
        return {}

    def spent(self) -> float:
        """FLOPs beside the graph since this was last asked, by this worker."""
        return 0.0

    def metrics(self) -> Metrics:
        """What the ledger should know of it after training."""
        return {}

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """The loss of a batch: ids (B, T), labels (B, T) with -100 where there is none, extras with first size B."""
        raise NotImplementedError


class ObjectiveTechnique(Technique):
    """An objective. Its fields are what params.yaml may say."""

    def begin(self, model: Any, job: Job, teacher: Path | None = None) -> Objective:
        """The objective at work on `model`."""
        raise NotImplementedError
