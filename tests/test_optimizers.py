"""Every optimizer of the registry learns, weighs what it says, decays matrices alone, and resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.models.load import new_model
from tasks.optimizers import Optimizer
from tasks.optimizers.technique import OptimizerTechnique, hidden
from tasks.training.loop import Loop
from tasks.training.schedule import Schedule
from tasks.training.settings import Settings
from tests.models import config, job

REGISTRY = Optimizer.techniques()
EVERY = pytest.mark.parametrize("name", REGISTRY)
FIELDS: dict[str, dict[str, Any]] = {
    "adamw_8bit": {"min_quantized": 100},
    "adamw_4bit": {"min_quantized": 100},
    "galore": {"rank": 4, "update_proj_gap": 3},
    "apollo": {"rank": 4, "update_proj_gap": 3},
}
"""So that tiny tensors are treated as large ones are."""
RATES = {"adafactor": 0.1, "lion": 1e-3, "galore": 0.03, "sgd": 0.1, "lomo": 0.5, "adalomo": 0.1, "mezo": 1e-3}
RATES["schedule_free"] = 0.02
SHAPES = [(40, 12), (12, 12), (30, 12), (12,), (13,), (3, 11, 70), (20, 1, 4), (1, 5), (70, 70), (40, 12)]
"""An embedding, matrices wide and tall, vectors, experts, a convolution, a row, and an output layer."""


def technique(name: str) -> OptimizerTechnique:
    """One of the registry, for tiny tensors."""
    made: OptimizerTechnique = REGISTRY[name](**FIELDS.get(name, {}))  # type: ignore[assignment]
    return made


def tensors(shapes: list[tuple[int, ...]], seed: int = 0) -> list[tuple[str, Any]]:
    """Parameters of these shapes."""
    made = torch.Generator().manual_seed(seed)
    return [(str(at), torch.nn.Parameter(torch.randn(shape, generator=made))) for at, shape in enumerate(shapes)]


def move(optimizer: Any, named: list[tuple[str, Any]], gradients: list[Any]) -> None:
    """One step with these gradients, in the backward pass where the optimizer wants that."""
    total = sum((p * g).sum() for (_, p), g in zip(named, gradients, strict=True))
    if hasattr(optimizer, "moving"):
        with optimizer.moving(1e9):
            total.backward()
    elif hasattr(optimizer, "estimate"):
        optimizer.estimate(
            lambda: float(sum((p * g).sum().double() for (_, p), g in zip(named, gradients, strict=True))), 1e9
        )
    else:
        total.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def noise(named: list[tuple[str, Any]], step: int) -> list[Any]:
    """Gradients of a step."""
    made = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(p.shape, generator=made) * 0.1 + 0.05 for _, p in named]


def run(name: str, folder: Path, stop: int | None = None, eval_every: int = 2) -> dict[str, Any]:
    """Weights after five steps of the loop; `stop`: killed before that step and started again."""
    rate = RATES.get(name, 1e-2)
    settings = Settings(5, rate, Schedule(shape="constant", warmup_steps=2), 0.1, 1.0, "fp32", 2, 1, technique(name))
    settings = Settings(**(vars(settings) | {"eval_every": eval_every}))
    ids = torch.randint(0, 400, (5, 2, 17), generator=torch.Generator().manual_seed(0))
    place, stops = job(folder), [stop] if stop is not None else []

    def batch(step: int) -> Any:
        if step in stops:
            stops.clear()
            raise KeyboardInterrupt
        return ids[step, :, :-1], ids[step, :, 1:]

    def start() -> dict[str, Any]:
        model = new_model(config(num_hidden_layers=1), seed=0)
        Loop(model, batch, settings, place, lambda: 0.0).run()
        return dict(model.state_dict())

    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            start()
    return start()


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Bit for bit."""
    return all(value.equal(other[key]) for key, value in one.items())


@EVERY
def test_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    """Killed between checkpoints and started again: the weights are those of an uninterrupted run, bit for bit."""
    straight = run(name, tmp_path / "straight")
    for stop in (1, 3):
        assert same(straight, run(name, tmp_path / str(stop), stop)), stop


def test_judging_changes_nothing(tmp_path: Path) -> None:
    """Validation after every step, or none: an optimizer that swaps weights for it leads to the same ones."""
    name = "schedule_free"
    assert same(run(name, tmp_path / "often", eval_every=1), run(name, tmp_path / "never", eval_every=0))


@EVERY
def test_state_bytes_are_those_of_the_state(name: str) -> None:
    """The formula gives the bytes of the state after one step, and after more; all of it tensors."""
    model = new_model(config(hidden_size=72, num_attention_heads=3), seed=0)
    for named in (tensors(SHAPES), list(model.named_parameters())):
        optimizer = technique(name).build(named, 1e-3, 0.1)
        for step in range(4):
            move(optimizer, named, noise(named, step))
            values = [value for row in optimizer.state_dict()["state"].values() for value in row.values()]
            held = sum(value.numel() * value.element_size() for value in values)
            assert technique(name).state_bytes(tuple(p.shape) for _, p in named) == held


@EVERY
def test_a_loaded_state_is_the_same(name: str) -> None:
    """Written and read, every tensor of the state has its type and its value, and the next step is the same."""
    first, second = tensors(SHAPES), tensors(SHAPES)
    one, other = (technique(name).build(named, 1e-3, 0.1) for named in (first, second))
    move(one, first, noise(first, 0))
    saved = {n: {k: v.clone() for k, v in row.items()} for n, row in one.state_dict()["state"].items()}
    other.load_state_dict({"state": saved, "param_groups": other.state_dict()["param_groups"]})
    for number, row in other.state_dict()["state"].items():
        assert all(
            value.dtype == saved[number][key].dtype and value.equal(saved[number][key]) for key, value in row.items()
        )
    with torch.no_grad():
        for (_, p), (_, q) in zip(first, second, strict=True):
            q.copy_(p)
    for named, optimizer in ((first, one), (second, other)):
        move(optimizer, named, noise(named, 1))
    assert all(p.equal(q) for (_, p), (_, q) in zip(first, second, strict=True))


@pytest.mark.parametrize("name", [name for name in REGISTRY if not technique(name).zeroth_order])
def test_learns(name: str) -> None:
    """Thirty steps on one batch take at least a third off the loss; a zeroth-order one takes thousands."""
    from tasks.training.loss import next_token_loss

    model = new_model(config(), seed=0)
    ids = torch.randint(0, 400, (2, 33), generator=torch.Generator().manual_seed(0))
    optimizer = technique(name).build(list(model.named_parameters()), RATES.get(name, 1e-2), 0.1)
    losses = []
    for _ in range(30):
        loss = next_token_loss(model, ids[:, :-1], ids[:, 1:])
        losses.append(float(loss.detach()))
        if hasattr(optimizer, "moving"):
            with optimizer.moving(1.0):
                loss.backward()
        else:
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert losses[-1] < losses[0] * 2 / 3, losses[-1]


@EVERY
def test_matrices_decay_without_a_gradient_and_vectors_do_not(name: str) -> None:
    """At zero gradients a matrix shrinks by rate x decay a step, a vector stays."""
    named = tensors(SHAPES)
    before = [p.detach().clone() for _, p in named]
    optimizer = technique(name).build(named, 0.1, 0.5)
    for _ in range(2):
        move(optimizer, named, [torch.zeros_like(p) for _, p in named])
    for (_, after), start in zip(named, before, strict=True):
        if REGISTRY[name].zeroth_order:  # type: ignore[attr-defined]  # there and back again, but for rounding
            assert torch.allclose(after, start * (0.95**2 if after.dim() > 1 else 1.0), atol=1e-5)
        elif after.dim() < 2:
            assert after.equal(start)
        elif REGISTRY[name].schedule_free:  # type: ignore[attr-defined]
            assert 0.9 < float(after.detach().norm() / start.norm()) < 1
        else:
            assert torch.allclose(after, start * 0.95**2, rtol=1e-5)


def test_matrices_of_blocks_are_told_from_the_rest() -> None:
    """Embedding, output layer, norms and convolutions are not among them; everything else of a block is."""
    for changes in ({}, {"tie_word_embeddings": False}):
        named = list(new_model(config(**changes), seed=0).named_parameters())
        inside = hidden(tuple(p.shape) for _, p in named)
        assert [n for (n, _), yes in zip(named, inside, strict=True) if yes] == [n for n, _ in named if "_proj" in n]
    assert hidden([(9, 4), (4, 4), (4,), (8, 1, 4), (2, 3, 4), (1, 4), (9, 4)]) == [
        False,
        True,
        False,
        False,
        True,
        False,
        False,
    ]
