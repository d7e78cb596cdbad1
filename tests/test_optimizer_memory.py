"""What is predicted of an optimizer's memory from a config alone is what its state weighs."""

from __future__ import annotations

from math import prod

import pytest

from tasks import accounting
from tasks.design import Design
from tasks.design.family import Family
from tasks.ledger.predict import plan
from tasks.models.load import weight_shapes
from tasks.optimizers import Optimizer
from tests.models import MACHINE, config
from tests.test_compatibility import chosen


@pytest.mark.parametrize("method", [name for name, kind in Design.techniques().items() if issubclass(kind, Family)])
def test_shapes_hold_every_parameter(method: str) -> None:
    """Shapes from the config hold exactly the parameters of every family."""
    made = Design.techniques()[method]().config(4096)  # type: ignore[attr-defined]
    assert sum(map(prod, accounting.parameter_shapes(made))) == accounting.parameters(made)


@pytest.mark.parametrize("name", Optimizer.techniques())
def test_state_is_predicted_from_the_config(name: str) -> None:
    """Within 1 % of the formula on the model's own tensors (a block's vectors count as one), for a Llama of 128 wide."""
    made = config(hidden_size=128, intermediate_size=384)
    real = [tuple(shape) for shape in weight_shapes(made).values()]
    technique = Optimizer.techniques()[name]()
    predicted = technique.state_bytes(accounting.parameter_shapes(made))  # type: ignore[attr-defined]
    assert predicted == pytest.approx(technique.state_bytes(real), rel=0.01)  # type: ignore[attr-defined]


def test_the_plan_knows_the_optimizer() -> None:
    """Less state, and no gradients beside it, is less memory in training (a large batch: its peak is above the evaluation's)."""
    found = {}
    for name in ("adamw", "lion", "lomo", "adalomo", "mezo"):
        params = chosen(pretrain__optimizer__method=name, pretrain__batch_size=256)
        found[name] = plan(params, MACHINE)["pretrain"]
    size, state, peak, kept = (
        {name: float(metrics[metric].value or 0) for name, metrics in found.items()}
        for metric in ("parameters", "optimizer_bytes", "peak_memory_bytes", "checkpoint_bytes")
    )
    assert state["lomo"] == 0
    assert state["lion"] == 4 * size["lion"]
    assert kept["lion"] == 8 * size["lion"]
    assert 0 < state["adalomo"] < size["adalomo"] / 10
    assert peak["mezo"] < peak["lomo"] < peak["adalomo"] < peak["lion"]
    assert found["mezo"]["activation_bytes/none"].value == 0
    assert float(found["mezo"]["flops"].value or 0) == pytest.approx(float(found["adamw"]["flops"].value or 0) * 2 / 3)
    assert peak["lomo"] < peak["lion"] - 6 * size["lion"] < peak["adamw"] - 9 * size["lion"]
