"""Steps that go wrong: rolled back, their batch left out, said and counted, and stopped when it does not help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import Diverged, UserError
from tasks.core.job import Job
from tasks.models.load import new_model
from tasks.objectives.next_token import NextToken, NextTokenLoss
from tasks.objectives.technique import Losses, Objective
from tasks.training.checkpoint import Keeper
from tasks.training.guard import Guard, Spike
from tasks.training.loop import Loop
from tasks.training.spikes import Spikes
from tasks.training.world import World
from tests.models import config, job
from tests.test_training import batch, same, settings, weights

NAN, HIGH = 398, 399
"""A sequence that begins with this id has a loss that is no number, or one a thousand times too high."""


class Touchy(NextToken):
    """Next token, with batches that go wrong."""

    def begin(self, *_: Any) -> Objective:
        """The same, spoilt by what a batch begins with."""
        return TouchyLoss()


class TouchyLoss(NextTokenLoss):
    """Multiplies the loss of batches that begin with `NAN` or `HIGH`."""

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """As `NextTokenLoss`, times a factor."""
        made, first = super().losses(model, inputs, labels, extras), int(inputs[0, 0])
        factor = {NAN: float("nan"), HIGH: 1000.0}.get(first, 1.0)
        return Losses(made.total * factor, {name: value * factor for name, value in made.shown.items()})


def spoilt(marks: dict[int, int]) -> Any:
    """Batches of which those numbered in `marks` begin with such an id."""

    def made(number: int) -> tuple[Any, Any]:
        inputs, labels = batch(number)
        inputs = inputs.clone()
        inputs[0, 0] = marks.get(number, 0)
        return inputs, labels

    return made


def train(batches: Any, place: Job, **changes: Any) -> tuple[dict[str, Any], Any]:
    """Final weights and metrics of a run that watches five steps for spikes."""
    model = new_model(config(), seed=0)
    values = {"objective": Touchy(), "spikes": Spikes(window=5)} | changes
    metrics = Loop(model, batches, settings(**values), place).run()
    return weights(model), metrics


@pytest.mark.parametrize(("mark", "wrong"), [(NAN, 0), (NAN, 5), (NAN, 6), (HIGH, 5), (HIGH, 8)])
def test_a_batch_that_goes_wrong_is_as_if_it_were_not_there(
    tmp_path: Path, wrong: int, mark: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The final weights are bit for bit those of a run whose data never had that batch; it is said and counted."""
    clean = spoilt({})
    without, _ = train(lambda number: clean(number + (number >= wrong)), job(tmp_path / "without"))
    place = job(tmp_path / "spoilt")
    capsys.readouterr()
    found, metrics = train(spoilt({wrong: mark}), place)
    assert same(without, found)
    said = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(said) == 1
    assert f"step {wrong}" in said[0]
    assert f"batch {wrong} is skipped (1 of at most 3)" in said[0]
    assert metrics["skipped_batches"].value == 1
    assert metrics["repeated_steps"].value == wrong % 3
    steps = [line.split(",")[0] for line in place.history.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(10)]


def test_without_deviations_only_what_is_no_number_is_wrong(tmp_path: Path) -> None:
    """`deviations: null` lets a high loss pass."""
    _, metrics = train(spoilt({7: HIGH, 8: NAN}), job(tmp_path), spikes=Spikes(deviations=None, window=5))
    assert metrics["skipped_batches"].value == 1


@pytest.mark.parametrize("most", [0, 2])
def test_too_many_stop_training(tmp_path: Path, most: int) -> None:
    """One batch more than may be skipped stops training with exit code 4; the last checkpoint stays, and so next time."""
    bad = spoilt(dict.fromkeys(range(4, 9), NAN))
    place = job(tmp_path)
    for _ in range(2):
        with pytest.raises(Diverged, match="test: the loss at step 4 is not a number") as caught:
            train(bad, place, spikes=Spikes(max_skipped=most))
        assert caught.value.code == 4
        assert "test.learning_rate" in caught.value.hint
        assert max(path.name for path in place.work.glob("checkpoint-*")) == "checkpoint-00000003"
    more, _ = train(bad, place, spikes=Spikes(max_skipped=5))
    assert same(more, train(bad, job(tmp_path / "at once"), spikes=Spikes(max_skipped=5))[0])


@pytest.mark.parametrize("at", [None, 6, 7])
def test_killed_on_the_way_back(tmp_path: Path, at: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed once the batch was noted, before the roll-back, after it, or past the next checkpoint: it stays left out."""
    bad = spoilt({5: NAN, 8: NAN})
    straight, metrics = train(bad, job(tmp_path / "straight"))
    place = job(tmp_path / "killed")
    with monkeypatch.context() as patched:
        if at is None:
            real = Keeper.restore
            patched.setattr(Keeper, "restore", lambda own, back=False: _killed() if back else real(own))
        batches = bad if at is None else lambda number: _killed() if number == at else bad(number)
        with pytest.raises(KeyboardInterrupt):
            train(batches, place)
    assert json.loads((place.work / "skipped.json").read_text())["skipped"] == [5]
    found, resumed = train(bad, place)
    assert same(straight, found)
    assert resumed["skipped_batches"] == metrics["skipped_batches"]
    assert resumed["tokens"] == metrics["tokens"]


def _killed() -> Any:
    raise KeyboardInterrupt


def test_numbers_of_batches_leave_out_the_skipped(tmp_path: Path) -> None:
    """Every batch but the skipped comes once, in order, whatever the order they were skipped in."""
    guard = Guard(Spikes(), job(tmp_path), World())
    guard.skipped = [7, 2, 3, 0]
    assert [guard.batch_of(step) for step in range(6)] == [1, 4, 5, 6, 8, 9]


def test_losses_that_hardly_move_are_no_spikes(tmp_path: Path) -> None:
    """Where losses are all but the same, a deviation counts as a hundredth of their mean."""
    guard = Guard(Spikes(window=4, deviations=2.0), job(tmp_path), World())
    guard.judge(3.05, 1.0, [3.0] * 4)
    with pytest.raises(Spike, match="is a spike"):
        guard.judge(3.07, 1.0, [3.0] * 4)
    guard.judge(9.0, 1.0, [3.0] * 3)


def test_batches_skipped_by_another_job_are_not_skipped(tmp_path: Path) -> None:
    """What lies there counts only with the job's own key; damaged, it is an error in words."""
    place = job(tmp_path)
    (place.work / "skipped.json").write_text('{"key": "other", "skipped": [1]}')
    assert Guard(Spikes(), place, World()).skipped == []
    (place.work / "skipped.json").write_text('{"key": "work", "skipped": [1')
    with pytest.raises(UserError, match=r"skipped\.json: damaged"):
        Guard(Spikes(), place, World())
