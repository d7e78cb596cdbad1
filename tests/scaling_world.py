"""A made-up world whose law is known: its runs, and the law itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tasks.scaling import law
from tasks.scaling.law import Law, Point

TRUE = (0.6, 12.0, 0.22, 160.0, 0.33)
"""(E, A, alpha, B, beta) of a made-up world whose losses look like those of small models."""
SIZES, STEPS = (100_000, 600_000, 1_800_000), (90, 180, 250, 350)
TARGET = (4_400_000, 350 * 13_600.0)


def world(noise: float, seed: int = 0, sizes: Sequence[int] = SIZES, steps: Sequence[int] = STEPS) -> list[Point]:
    """Runs of that world, each off by a factor of about exp(`noise`)."""
    random = np.random.default_rng(seed)
    return [
        Point(
            {"hidden_size": size},
            size,
            step * 13_600.0,
            3e7,
            step,
            1e-3,
            real(size, step * 13_600.0, noise, random),
            1.0,
            1.0,
        )
        for size in sizes
        for step in steps
    ]


def real(size: float, text: float, noise: float, random: Any) -> float:
    """One outcome."""
    return law.loss(TRUE, size, text) * math.exp(random.normal(0, noise) if noise else 0.0)


def made(**changes: Any) -> Law:
    """That world's law, known."""
    return replace(Law(*TRUE, (TRUE,), 0.01, "made up"), **changes)
