"""Optimizers that keep no gradients, or have none, beside their papers' formulas."""

from __future__ import annotations

import pytest
import torch

from tasks.optimizers.adafactor import Adafactor
from tasks.optimizers.adalomo import AdaLomo
from tasks.optimizers.mezo import MeZO
from tests.test_optimizer_rules import RATE, SHAPES, close, made
from tests.test_optimizers import move, noise, tensors


def test_adalomo_takes_adafactors_steps_in_the_backward_pass() -> None:
    """The papers' updates are the same: torch's Adafactor, which moves when all gradients are there, ends where it does."""
    assert close(made(AdaLomo()), made(Adafactor()))
    named = tensors(SHAPES)
    move(AdaLomo().build(named, RATE, 0.0), named, noise(named, 0))
    assert all(p.grad is None for _, p in named)


def test_mezo_moves_along_its_noise_by_the_slope_there() -> None:
    """On a plane the slope along the noise is exact; the step is the noise times it, limited, and the noise isn't kept."""
    named, steps = tensors(SHAPES), []
    starts = [p.detach().clone() for _, p in named]
    gradients = noise(named, 0)
    for limit in (1e9, 0.1):
        for (_, p), start in zip(named, starts, strict=True):
            p.data.copy_(start)
        optimizer = MeZO().build(named, RATE, 0.0)
        torch.manual_seed(3)
        slope = optimizer.estimate(
            lambda: float(sum((p * g).double().sum() for (_, p), g in zip(named, gradients, strict=True))), limit
        )
        assert close([p.detach() for _, p in named], starts)
        optimizer.step()
        steps.append([(p.detach() - start) for (_, p), start in zip(named, starts, strict=True)])
        assert not any(row for row in optimizer.state.values())
    direction = [step / (-RATE * slope) for step in steps[0]]
    along = sum(float((d * g).sum()) for d, g in zip(direction, gradients, strict=True))
    assert along == pytest.approx(slope, rel=1e-2)
    assert torch.cat([d.flatten() for d in direction]).std() == pytest.approx(1.0, rel=0.05)
    assert close([one * (0.1 / abs(slope)) for one in steps[0]], steps[1])


def test_mezo_learns() -> None:
    """A small regression is solved from losses alone."""
    made_up = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(64, 8, generator=made_up), torch.randn(8, 1, generator=made_up)
    named = [("w", torch.nn.Parameter(torch.zeros(8, 1)))]
    optimizer = MeZO().build(named, 0.02, 0.0)

    def loss() -> float:
        return float((inputs @ (named[0][1].detach() - weight)).square().mean())

    before = loss()
    for step in range(400):
        torch.manual_seed(step)
        optimizer.estimate(loss, 1e9)
        optimizer.step()
    assert loss() < before / 100
