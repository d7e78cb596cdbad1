"""Loss as a function of model size and training text (arXiv:2203.15556), with the uncertainty of its fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PATH = Path("reports/scaling.json")


@dataclass(frozen=True)
class Interval:
    """A value, and the bounds between which nine of ten outcomes are expected."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """bits per byte = E + A / N^alpha + B / D^beta.

    Attributes:
        E, A, alpha, B, beta: of the best fit; N counts active parameters without embeddings, D bytes of training text.
        replicas: (E, A, alpha, B, beta) of every bootstrap resample.
        residual: standard deviation of log(measured / fitted) over the runs it was fitted to.
        source: what it was fitted to, for the note of a prediction.
        data: identity of the training text (`data_key`), "" unknown.
    """

    E: float
    A: float
    alpha: float
    B: float
    beta: float
    replicas: tuple[tuple[float, float, float, float, float], ...]
    residual: float
    source: str
    data: str = ""

    def bits_per_byte(self, parameters: float, train_bytes: float) -> Interval:
        """What a model of `parameters` trained once over `train_bytes` of distinct text is expected to reach."""
        raise NotImplementedError


def load(path: Path = PATH) -> Law | None:
    """The law fitted last in this project; None if there is none."""
    raise NotImplementedError
