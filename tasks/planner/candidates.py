"""A model that could be built, and what it needs and reaches for any length of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from tasks.core.measure import Value
from tasks.models import Config
from tasks.params import Params
from tasks.planner.constraints import Figure, Limit
from tasks.planner.quality import COMPRESS_LOSS, FILE_LOSS, PASSES, Quality

Figures = dict[Figure, float | None]
"""What is predicted; None: it can't be."""


@dataclass(frozen=True)
class Shape:
    """A model of one size and one file type.

    Attributes:
        family: of `design`.
        values: what params.yaml must say for it, beside the length of training.
        params: the whole configuration.
        config: transformers' config of it.
        context: tokens in the cache at inference; None: those of the profile.
        parameters: all of them.
        active: those a token passes, without embeddings.
        base: every figure but quality at no steps.
        per_step: what a step of pretraining adds to it.
        quality: predicts bits per byte.
    """

    family: str
    values: dict[str, Any]
    params: Params
    config: Config
    context: int | None
    parameters: int
    active: int
    base: Figures
    per_step: dict[Figure, float]
    quality: Quality

    @property
    def kind(self) -> str:
        """Type of the file it is served from: a GGUF's, or how safetensors are compressed where no GGUF is written."""
        profile, method = self.params.deploy_profile, self.params.compress.method
        return str(profile.serve) if profile.gguf else "safetensors" if method == "none" else method

    @cached_property
    def lost(self) -> float:
        """What compression and the file's type do to the code length, as a factor."""
        return COMPRESS_LOSS.get(self.params.compress.method, 1.0) * FILE_LOSS.get(self.kind, 1.0)

    @property
    def text(self) -> float:
        """Bytes of text in one step."""
        pretrain = self.params.pretrain
        return pretrain.batch_size * pretrain.context_length * self.quality.bytes_per_token

    @property
    def least(self) -> int:
        """Steps a run has at least: its warm-up, and one more."""
        return int(self.params.pretrain.schedule.warmup_steps) + 1

    @property
    def most(self) -> int:
        """Steps beyond which the text is repeated too often."""
        return max(self.least, int(PASSES * self.quality.distinct / self.text))

    def bits_per_byte(self, steps: int) -> float:
        """Predicted for that many steps."""
        return self.quality.value(self.active, steps * self.text, self.lost)

    def at(self, steps: int) -> Candidate:
        """This shape trained for `steps` steps."""
        found: Figures = {
            name: None if value is None else value + self.per_step.get(name, 0.0) * steps
            for name, value in self.base.items()
        }
        return Candidate(self, steps, {**found, "bits_per_byte": self.bits_per_byte(steps)})

    def longest(self, limits: Sequence[Limit]) -> int:
        """Most steps within all limits, 0 if there are none."""
        steps = self.most
        for limit in limits:
            if limit.figure == "bits_per_byte":
                continue
            start, slope = self.base[limit.figure], self.per_step.get(limit.figure, 0.0)
            if start is None or start + slope * self.least > limit.most:
                return 0
            if slope > 0:
                steps = min(steps, int((limit.most - start) / slope))
        return steps if steps >= self.least and self.bits_per_byte(steps) <= _wanted(limits) else 0

    def shortest(self, limits: Sequence[Limit]) -> int:
        """Fewest steps that reach the wanted quality (the least of a run, if none is wanted), 0 if none do."""
        wanted, low, high = _wanted(limits), self.least, self.most
        if self.bits_per_byte(high) > wanted:
            return 0
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.bits_per_byte(middle) <= wanted else (middle + 1, high)
        return low


@dataclass(frozen=True)
class Candidate:
    """A model and how long it is trained.

    Attributes:
        shape: the model.
        steps: of pretraining.
        figures: what it is predicted to need and to reach.
    """

    shape: Shape
    steps: int
    figures: Figures

    @property
    def values(self) -> dict[str, Any]:
        """What params.yaml must say for it."""
        return {**self.shape.values, "pretrain.steps": self.steps}

    @property
    def bits_per_byte(self) -> float:
        """Predicted by the best fit."""
        found = self.figures["bits_per_byte"]
        return inf if found is None else found

    @property
    def quality(self) -> Value:
        """Predicted, with bounds and source."""
        shape = self.shape
        return shape.quality.judged(shape.active, self.steps * shape.text, shape.lost)

    @property
    def tokens(self) -> int:
        """Trained on, repetitions included."""
        pretrain = self.shape.params.pretrain
        return self.steps * pretrain.batch_size * pretrain.context_length

    def keeps(self, limits: Sequence[Limit]) -> bool:
        """Whether it stays within all of them."""
        return all((value := self.figures[limit.figure]) is not None and value <= limit.most for limit in limits)


def _wanted(limits: Sequence[Limit]) -> float:
    return min((limit.most for limit in limits if limit.figure == "bits_per_byte"), default=inf)
