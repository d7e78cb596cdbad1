"""The scaling law: what a fit finds, how sure it is, what it refuses, and the file it is kept in."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import UserError
from tasks.scaling import fit as fitting
from tasks.scaling import law
from tasks.scaling.fit import fit
from tasks.scaling.law import Point, Record, effective_bytes
from tests.scaling_world import TARGET, TRUE, made, real, world


@pytest.fixture(autouse=True)
def _few_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "REPLICAS", 20)


def test_fit_finds_the_law_it_was_made_from() -> None:
    """Without noise the law is exact where runs are, and its extrapolation is within two thousandths."""
    points = world(0.0)
    found = fit(points, "a test")
    for point in points:
        assert found.bits_per_byte(point.parameters, point.train_bytes).value == pytest.approx(
            point.bits_per_byte, rel=1e-4
        )
    assert found.bits_per_byte(*TARGET).value == pytest.approx(law.loss(TRUE, *TARGET), rel=2e-3)


@pytest.mark.slow
def test_intervals_hold_the_truth() -> None:
    """Of twelve repeated worlds at least eight real losses at a larger size lie inside, and no interval says nothing."""
    inside, widths = 0, []
    for seed in range(12):
        found = fit(world(0.006, seed), "a test").bits_per_byte(*TARGET)
        outcome = real(*TARGET, 0.006, np.random.default_rng(100 + seed))
        inside += found.low <= outcome <= found.high
        widths.append((found.high - found.low) / found.value)
        assert found.low <= found.value <= found.high
    assert inside >= 8
    assert max(widths) < 0.2


def test_noisier_runs_give_a_wider_interval() -> None:
    """The interval grows with the spread of the runs."""
    quiet, loud = (fit(world(noise), "a test").bits_per_byte(*TARGET) for noise in (0.002, 0.03))
    assert loud.high - loud.low > 2 * (quiet.high - quiet.low)


def test_a_floor_that_can_not_be_seen_is_not_invented() -> None:
    """Runs far above the floor: E is bounded by 0 and the best loss, exponents by (0, 2), and its interval says how unsure."""
    found = fit(world(0.01, 3), "a test")
    best = min(point.bits_per_byte for point in world(0.01, 3))
    for floor, a, alpha, b, beta in [(found.E, found.A, found.alpha, found.B, found.beta), *found.replicas]:
        assert 0 <= floor <= best * 1.05
        assert a > 0
        assert b > 0
        assert 0 < alpha <= 2
        assert 0 < beta <= 2
    assert found.bounds("E").high - found.bounds("E").low > 0.05


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (world(0.0)[:4], "found 4 runs of 1 sizes and 4 durations"),
        (world(0.0, sizes=(100_000,), steps=range(100, 800, 100)), "7 runs of 1 sizes"),
        (world(0.0, steps=(100, 200)), "6 runs of 3 sizes and 2 durations"),
        ([*world(0.0), replace(world(0.0)[0], bits_per_byte=math.nan)], "a loss of nan bits per byte"),
    ],
)
def test_too_little_to_fit_is_refused(points: list[Point], words: str) -> None:
    """Five coefficients from too few runs, sizes or durations, or a loss that is no number: said, not fitted."""
    with pytest.raises(UserError, match=words):
        fit(points, "a test")


def test_repeated_text_is_worth_less_and_less() -> None:
    """One epoch counts in full; more always helps, ever less, and never beyond 1 + R* epochs."""
    worth = [effective_bytes(epochs * 100.0, 100.0) for epochs in (0.5, 1, 2, 4, 16, 64, 1000)]
    assert worth[:2] == [50, 100]
    assert worth == sorted(worth)
    assert worth[2] == pytest.approx(200, rel=0.04)
    assert worth[-1] < 100 * (1 + law.REPEATED_EPOCHS + 1e-9)
    assert made().bits_per_byte(1e6, 1e8, 1e6).value > made().bits_per_byte(1e6, 1e8).value


def test_compute_optimal_is_the_best_split() -> None:
    """Any other size for the same 6ND has a higher loss."""
    known = made(bytes_per_token=3.3)
    size, text = known.compute_optimal(1e15)
    assert 6 * size * text / 3.3 == pytest.approx(1e15)
    best = known.bits_per_byte(size, text).value
    for factor in (0.5, 0.9, 1.1, 2):
        assert known.bits_per_byte(size * factor, text / factor).value > best


def test_law_survives_the_disk(tmp_path: Path) -> None:
    """What is saved is loaded, replicas to six digits; no file: no law; a damaged one is named with what to do."""
    path = tmp_path / "reports" / "scaling.json"
    assert law.load(path) is None
    record = Record(fit(world(0.005), "a test", "key", "llama", 3.3), world(0.005), {"family": "llama"}, "2026-01-01")
    law.save(record, path)
    found = law.read(path)
    assert found is not None
    assert replace(found.law, replicas=()) == replace(record.law, replicas=())
    assert np.allclose(found.law.replicas, record.law.replicas, rtol=1e-5)
    assert found.points == record.points
    path.write_text(path.read_text()[:-40])
    with pytest.raises(UserError, match=r"scaling\.json: damaged"):
        law.load(path)
    path.write_text(json.dumps({"law": {}}))
    with pytest.raises(UserError, match=r"scaling\.json: damaged"):
        law.load(path)


def test_data_key_follows_the_text(tmp_path: Path) -> None:
    """No data, no key; other text or other held-out bytes, another key."""
    assert law.data_key(tmp_path) == ""
    (tmp_path / "shards.json").write_text("{}")
    first = law.data_key(tmp_path)
    (tmp_path / "heldout.jsonl").write_text("{}")
    assert first
    assert law.data_key(tmp_path) not in ("", first)
