"""Fits the law to finished runs: Huber loss on log L from a grid of starts, and a bootstrap of the residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tasks.core.errors import UserError
from tasks.scaling.law import COVERED, Coefficients, Law, Point, effective_bytes

HUBER_DELTA = 1e-3
"""Of the loss on log L (arXiv:2203.15556, appendix D.2)."""

STARTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
"""Exponents of the grid of starts, for alpha and beta each; E, A and B follow from them by least squares."""

FEW_STARTS = (0.2, 0.5, 1.0)
"""The grid of a replica, which starts from the best fit, too."""

POLISHED = 6
"""How many of the best starts are followed to the end."""

REPLICAS = 100
FEWEST_RUNS, FEWEST_LEVELS = 6, 3
COEFFICIENTS = 5
SMALLEST_EXPONENT, LARGEST_EXPONENT = 1e-3, 2.0
SMALLEST_RESIDUAL = 0.002
"""A spread that few runs can't show: another seed alone moves a small run's loss by a few thousandths (assumed)."""

Numbers = Any
"""A numpy array of float64."""


def fit(points: Sequence[Point], source: str, data: str = "", family: str = "", bytes_per_token: float = 1.0) -> Law:
    """The law of `points`, with its replicas.

    The runs are a designed grid, so the bootstrap keeps their sizes and durations and draws their residuals anew,
    scaled up for the five coefficients that have been fitted (Davison & Hinkley 1997, section 6.2.3) and, by Student's
    distribution, for the few runs that are left to tell their spread.

    Raises:
        UserError: too few runs, sizes or durations to tell five coefficients apart, or a loss that is not a number.
    """
    import numpy as np

    _check(points)
    text = [effective_bytes(point.train_bytes, point.distinct_bytes) for point in points]
    sizes = np.log([float(point.parameters) for point in points])
    texts = np.log(text)
    logs = np.log([point.bits_per_byte for point in points])
    best = _solve(sizes, texts, logs, STARTS)
    fitted = _log_loss(best, sizes - sizes.mean(), texts - texts.mean())[0]
    residuals = logs - fitted
    freedom = max(1, len(points) - COEFFICIENTS)
    spread = max(math.sqrt(float(residuals @ residuals) / freedom), SMALLEST_RESIDUAL) * _student(freedom)
    centred = residuals - residuals.mean()
    size = math.sqrt(float(centred @ centred) / len(points))
    drawn_from = centred * (spread / size) if size > 0 else centred
    random = np.random.default_rng(0)
    replicas = []
    for _ in range(REPLICAS):
        again = fitted + random.choice(drawn_from, len(points))
        replicas.append(_coefficients(_solve(sizes, texts, again, FEW_STARTS, best), sizes.mean(), texts.mean()))
    floor, a, alpha, b, beta = _coefficients(best, sizes.mean(), texts.mean())
    return Law(floor, a, alpha, b, beta, tuple(replicas), spread, source, data, family, bytes_per_token)


def _check(points: Sequence[Point]) -> None:
    wrong = [point for point in points if not (math.isfinite(point.bits_per_byte) and point.bits_per_byte > 0)]
    if wrong:
        what = f"{wrong[0].parameters:,} parameters over {wrong[0].steps} steps"
        raise UserError(
            f"the run of {what} has a loss of {wrong[0].bits_per_byte} bits per byte", "lower pretrain.learning_rate"
        )
    sizes = len({point.parameters for point in points})
    texts = len({point.train_bytes for point in points})
    if len(points) < FEWEST_RUNS or sizes < FEWEST_LEVELS or texts < FEWEST_LEVELS:
        raise UserError(
            f"a law has five coefficients; found {len(points)} runs of {sizes} sizes and {texts} durations",
            f"it takes {FEWEST_RUNS} runs, {FEWEST_LEVELS} sizes and {FEWEST_LEVELS} durations: "
            "`leanlm scale` goes on from the runs that are kept, with more --minutes if need be",
        )


def _student(freedom: int) -> float:
    """How much further nine of ten outcomes reach when their spread is known from `freedom` residuals only."""
    from scipy.special import ndtri, stdtrit

    tail = (1 + COVERED) / 2
    return float(stdtrit(freedom, tail) / ndtri(tail))


def _solve(
    sizes: Numbers, texts: Numbers, logs: Numbers, grid: Sequence[float], near: Numbers | None = None
) -> Numbers:
    """Best (e, a, alpha, b, beta) for centred logarithms; `near` stands for all but one start of the grid."""
    import numpy as np
    from scipy.optimize import minimize

    x, y = sizes - sizes.mean(), texts - texts.mean()
    highest = float(logs.min())
    bounds = [
        (highest - 15, highest),
        *([(highest - 15, highest + 10), (SMALLEST_EXPONENT, LARGEST_EXPONENT)] * 2),
    ]
    starts = [_start(x, y, np.exp(logs), alpha, beta, bounds) for alpha in grid for beta in grid]
    ranked = sorted(starts, key=lambda start: _objective(start, x, y, logs)[0])[: POLISHED if near is None else 1]
    found = [
        minimize(_objective, start, (x, y, logs), method="L-BFGS-B", jac=True, bounds=bounds)
        for start in [*ranked, *([] if near is None else [near])]
    ]
    return min(found, key=lambda result: float(result.fun)).x


def _start(x: Numbers, y: Numbers, losses: Numbers, alpha: float, beta: float, bounds: list[Any]) -> Numbers:
    """For given exponents the law is linear: E, A and B by non-negative least squares of the relative error."""
    import numpy as np
    from scipy.optimize import nnls

    columns = np.stack([np.ones_like(x), np.exp(-alpha * x), np.exp(-beta * y)], axis=1) / losses[:, None]
    floor, a, b = np.log(np.maximum(nnls(columns, np.ones_like(x))[0], 1e-5))
    low, high = np.array(bounds).T
    return np.clip([floor, a, alpha, b, beta], low, high)


def _log_loss(theta: Numbers, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Logarithm of L of every run, and its gradient (runs, 5)."""
    import numpy as np

    e, a, alpha, b, beta = theta
    terms = np.stack([np.full_like(x, e), a - alpha * x, b - beta * y])
    top = terms.max(axis=0)
    total = top + np.log(np.exp(terms - top).sum(axis=0))
    share = np.exp(terms - total)
    return total, np.stack([share[0], share[1], -share[1] * x, share[2], -share[2] * y], axis=1)


def _objective(theta: Numbers, x: Numbers, y: Numbers, logs: Numbers) -> tuple[float, Numbers]:
    """Huber loss of log L in units of its delta, and its gradient."""
    import numpy as np

    found, slope = _log_loss(theta, x, y)
    errors = (found - logs) / HUBER_DELTA
    inside = np.abs(errors) <= 1
    value = np.where(inside, errors**2 / 2, np.abs(errors) - 0.5).sum()
    return float(value), (np.clip(errors, -1, 1) @ slope) / HUBER_DELTA


def _coefficients(theta: Numbers, size: float, text: float) -> Coefficients:
    """(E, A, alpha, B, beta) from the coefficients about the mean logarithms `size` and `text`."""
    e, a, alpha, b, beta = (float(number) for number in theta)
    return math.exp(e), math.exp(a + alpha * float(size)), alpha, math.exp(b + beta * float(text)), beta
