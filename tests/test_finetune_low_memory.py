"""Every optimizer finetunes; what is not in memory is known beforehand."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.accounting.memory import activation_bytes, head_gradient_bytes
from tasks.compatibility import problems
from tasks.finetune import Finetune
from tasks.finetune.badam import Badam
from tasks.finetune.bitfit import Bitfit
from tasks.finetune.layers import Layers
from tasks.finetune.lisa import Lisa
from tasks.ledger.predict import plan as predicted
from tasks.optimizers import Optimizer
from tests.models import MACHINE, config, plan
from tests.test_compatibility import chosen
from tests.test_predict_memory import saved_bytes
from tests.tuning import DEEP, LABELLED, LENGTH, loop


@pytest.mark.parametrize("method", ["full", "lora", "layers"])
def test_two_forward_passes_are_predicted(method: str, tmp_path: Path) -> None:
    """Without a backward pass a step takes two forward passes, and nothing is kept."""
    technique = Finetune.techniques()[method]()
    running, _ = loop(technique, tmp_path, optimizer=Optimizer().mezo)  # type: ignore[arg-type]
    metrics = running.run()
    flops = 2 * technique.forward_flops_per_token(DEEP, LENGTH, LABELLED)  # type: ignore[attr-defined]
    assert metrics["flops"].value == pytest.approx(flops * metrics["tokens"].value, rel=0.005)
    assert metrics["optimizer_bytes"].value == 0


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", Optimizer.techniques())
def test_every_optimizer_finetunes(name: str, method: str, tmp_path: Path) -> None:
    """All weights or an adapter: what is trained moves and is float32, nothing else does, state weighs what was said."""
    made = config(hidden_size=128, intermediate_size=256)
    optimizer = Optimizer.techniques()[name]()
    technique: Any = Finetune.techniques()[method]()
    running, tuning = loop(technique, tmp_path, optimizer=optimizer, made=made)  # type: ignore[arg-type]
    before = {key: p.detach().clone() for key, p in tuning.model.named_parameters()}
    metrics = running.run()
    for key, p in tuning.model.named_parameters():
        assert p.dtype == torch.float32
        assert p.equal(before[key]) != p.requires_grad, key
    said = optimizer.state_bytes(technique.trained_shapes(made))  # type: ignore[attr-defined]
    assert metrics["optimizer_bytes"].value == pytest.approx(said, rel=0.01)
    assert tuning.trainable() == sum(map(prod, technique.trained_shapes(made)))


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ({"optimizer__method": "schedule_free"}, "finetune.schedule.shape: found cosine"),
        ({"method": "lisa", "optimizer__method": "schedule_free"}, "lisa makes it forget"),
        ({"method": "layers", "layers__layers_to_transform": [99]}, "finetune.layers.layers_to_transform: found 99"),
        ({"method": "lisa", "lisa__n_layers": 99}, "finetune.lisa.n_layers: found 99"),
    ],
)
def test_what_excludes_each_other_is_refused_early(assignments: dict[str, Any], said: str) -> None:
    """Before anything runs, by the parameter's path."""
    params = chosen(**{f"finetune__{name}": value for name, value in assignments.items()})
    assert any(said in line for line in problems(params, DEEP))


def test_the_plan_knows_what_is_not_in_memory() -> None:
    """Peaks fall from all weights to some at a time, to none kept; what rests has neither gradient nor state."""
    found, sizes = (
        {},
        {"finetune__batch_size": 64, "evaluate__batch_size": 1},
    )  # the training's peak is to be the stage's
    for name in ("full", "lisa", "badam"):
        found[name] = predicted(chosen(finetune__method=name, **sizes), MACHINE)["finetune"]
    for name in ("lomo", "mezo"):
        params = chosen(finetune__method="full", finetune__optimizer__method=name, **sizes)
        found[name] = predicted(params, MACHINE)["finetune"]
    peak, state, flops = (
        {name: float(metrics[metric].value or 0) for name, metrics in found.items()}
        for metric in ("peak_memory_bytes", "optimizer_bytes", "flops")
    )
    assert peak["mezo"] < peak["badam"] < peak["lisa"] < peak["full"]
    assert peak["mezo"] < peak["lomo"] < peak["full"]
    assert state["badam"] < state["lisa"] < state["full"]
    assert state["mezo"] == state["lomo"] == 0
    assert flops["badam"] < flops["mezo"] < flops["lisa"] < flops["full"] == flops["lomo"]


@pytest.mark.parametrize(
    "technique",
    [Layers(last=2), Bitfit(), Lisa(n_layers=1), Badam(switch_mode="ascending"), Badam(switch_mode="descending")],
    ids=lambda made: f"{made.method} {getattr(made, 'switch_mode', '')}",
)
def test_activations_of_what_passes_are_fewer(technique: Any) -> None:
    """Where weights rest autograd keeps what is predicted: not what they read, and nothing below the first that learns."""
    made = config(
        hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2
    )

    def begin(model: Any) -> Any:
        tuning = technique.begin(model, plan())
        tuning.before_step(0, torch.optim.SGD(model.parameters(), 0.1))
        return tuning.model

    measured = saved_bytes(made, 4, 128, False, begin)
    learning = technique.learning(made)
    kept = activation_bytes(made, 4 * 128, context=128, learning=learning)
    head = head_gradient_bytes(made) if (400, 256) in technique.trained_shapes(made) else 0
    if getattr(technique, "switch_mode", "") == "descending":  # its first turn is the last layer's: less than the most
        assert measured < (kept + head) / 2
    else:
        assert kept + head == pytest.approx(measured, rel=0.05)
