"""The training loop: deterministic, resumable bit for bit, honest about divergence and FLOPs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.accounting import training_flops_per_token
from tasks.core.errors import Diverged, OverBudget
from tasks.models.chat import IGNORED
from tasks.models.load import new_model
from tasks.training.flops import Flops
from tasks.training.loop import Loop
from tasks.training.loss import next_token_loss
from tasks.training.schedule import Schedule
from tasks.training.settings import Settings
from tests.models import config, job

LENGTH = 32


def settings(**changes: Any) -> Settings:
    """Ten steps."""
    values: dict[str, Any] = {
        "steps": 10,
        "learning_rate": 1e-2,
        "schedule": Schedule(warmup_steps=2),
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "checkpoint_every": 3,
        "seed": 1,
    }
    return Settings(**(values | changes))


def batch(step: int) -> tuple[Any, Any]:
    """Random tokens, the same for the same step."""
    import torch

    ids = torch.randint(0, 400, (2, LENGTH + 1), generator=torch.Generator().manual_seed(step))
    return ids[:, :-1], ids[:, 1:]


def weights(model: Any) -> dict[str, Any]:
    """A copy of the weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of weights are bit for bit the same."""
    return all(value.equal(other[name]) for name, value in one.items())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("stopped_at", [1, 4, 6, 9])
def test_resumed_equals_uninterrupted(tmp_path: Path, stopped_at: int, dropout: float) -> None:
    """Stopped after any step and started again: the final weights are those of an uninterrupted run, bit for bit."""
    changes = {"attention_dropout": dropout}
    straight = new_model(config(**changes), seed=0)
    Loop(straight, batch, settings(), job(tmp_path / "straight")).run()

    def interrupted(step: int) -> tuple[Any, Any]:
        if step == stopped_at:
            raise KeyboardInterrupt
        return batch(step)

    place = job(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        Loop(new_model(config(**changes), seed=0), interrupted, settings(), place).run()
    resumed = new_model(config(**changes), seed=0)
    metrics = Loop(resumed, batch, settings(), place).run()
    assert same(weights(straight), weights(resumed))
    assert metrics["tokens"].value == 10 * 2 * LENGTH
    steps = [line.split(",")[0] for line in place.history.read_text().splitlines()[1:]]
    assert steps == [str(step) for step in range(10)]


def test_damaged_checkpoint_falls_back(tmp_path: Path) -> None:
    """A checkpoint cut short is passed over for the one before; the result is the same."""
    straight = new_model(config(), seed=0)
    Loop(straight, batch, settings(), job(tmp_path / "straight")).run()
    place = job(tmp_path / "damaged")
    Loop(new_model(config(), seed=0), batch, settings(), place).run()
    newest = sorted(place.work.glob("checkpoint-*"))[-1] / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    resumed = new_model(config(), seed=0)
    Loop(resumed, batch, settings(), place).run()
    assert same(weights(straight), weights(resumed))
    assert (place.work / f"damaged-{newest.parent.name}").is_dir(), "kept aside, for whoever can mend it"


def test_budget_stops_with_a_checkpoint(tmp_path: Path) -> None:
    """Over budget: a checkpoint of that very step stays, and with a higher budget the run goes on from there."""
    straight = new_model(config(), seed=0)
    Loop(straight, batch, settings(), job(tmp_path / "straight")).run()
    place = job(tmp_path / "budget")
    place.over_budget = lambda flops: "budget.flops is used up" if flops > 2.5 * FLOPS else ""
    with pytest.raises(OverBudget, match="stopped after step 3 of 10"):
        Loop(new_model(config(), seed=0), batch, settings(checkpoint_every=100), place).run()
    names = sorted(path.name for path in place.work.glob("checkpoint-*"))
    assert names == ["checkpoint-00000000", "checkpoint-00000003"]
    place.over_budget = lambda _: ""
    resumed = new_model(config(), seed=0)
    Loop(resumed, batch, settings(checkpoint_every=100), place).run()
    assert same(weights(straight), weights(resumed))


FLOPS = 2 * LENGTH * training_flops_per_token(config(), LENGTH)


def test_nan_is_refused_and_nothing_lost(tmp_path: Path) -> None:
    """A loss that is no number whatever the batch stops training with exit code 4; the checkpoint from before it stays."""
    import torch

    model = new_model(config(), seed=0)

    def poisoned(step: int) -> tuple[Any, Any]:
        if step >= 5:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        return batch(step)

    place = job(tmp_path)
    with pytest.raises(Diverged, match=r"step 5 is not a number.*after 3 batches") as caught:
        Loop(model, poisoned, settings(), place).run()
    assert caught.value.code == 4
    assert sorted(path.name for path in place.work.glob("checkpoint-*"))[-1] == "checkpoint-00000003"


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"num_key_value_heads": 2}])
def test_counted_flops_equal_the_formula(changes: dict[str, Any]) -> None:
    """Operators that ran, counted length by length, give the formula's FLOPs within 0.5 %."""
    model = new_model(config(**changes), seed=0)

    def step(length: int, labelled: int, sequences: int) -> None:
        ids = batch(0)[0][:1].repeat(sequences, 5)[:, :length]
        labels = ids.clone()
        labels[:, labelled:] = IGNORED
        next_token_loss(model, ids, labels).backward()

    flops = Flops(step)
    for length in (16, 100):
        formula = length * training_flops_per_token(config(**changes), length)
        assert flops.of(1, length, length) == pytest.approx(formula, rel=0.005)


def test_lengths_are_counted_once_each() -> None:
    """A batch is sequences x one sequence + labelled tokens x one token's logits; asking again runs nothing."""
    model = new_model(config(), seed=0)
    ran: list[tuple[int, int]] = []

    def step(length: int, labelled: int, sequences: int) -> None:
        import torch

        ran.append((length, labelled))
        ids = torch.arange(length).repeat(sequences, 1)
        labels = ids.clone()
        labels[:, labelled:] = IGNORED
        next_token_loss(model, ids, labels).backward()

    flops = Flops(step)
    head = 6 * 64 * 400
    assert flops.of(1, 24, 5) - flops.of(1, 24, 4) == head
    assert flops.of(3, 24, 7) == 3 * flops.of(1, 24, 0) + 7 * head
    assert len(ran) == 3
    assert flops.of(1, 25, 1) > flops.of(1, 24, 1)
    assert len(ran) == 4


@pytest.mark.parametrize("shape", ["cosine", "wsd", "constant"])
def test_schedules_warm_up_and_end(shape: str) -> None:
    """The rate rises to the peak, never passes it, and ends near its minimum (constant: stays)."""
    schedule = Schedule(shape=shape, warmup_steps=10, min_ratio=0.1)
    ratios = [schedule.ratio(step, 100) for step in range(100)]
    assert ratios[0] == pytest.approx(0.1)
    assert max(ratios) == 1.0
    assert ratios[:10] == sorted(ratios[:10])
    assert ratios[-1] == (1.0 if shape == "constant" else pytest.approx(0.1, abs=0.04))


def test_loss_is_that_of_transformers() -> None:
    """Logits only where there is a label give transformers' own loss."""
    model = new_model(config(), seed=0)
    inputs, labels = batch(0)
    labels = labels.clone()
    labels[:, :20] = -100
    logits = model(input_ids=inputs).logits
    import torch

    reference = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert float(next_token_loss(model, inputs, labels).detach()) == pytest.approx(float(reference.detach()), rel=1e-5)
