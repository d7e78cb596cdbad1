"""Experts are kept busy as upstream does it: by transformers' loss, or by DeepSeek's bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.design import Design
from tasks.models.chat import IGNORED
from tasks.models.load import new_model
from tasks.training.balance import BIAS, RATE, BiasBalance, balancing_state
from tasks.training.loop import Loop
from tasks.training.loss import next_token_loss, training_losses
from tests.models import job
from tests.test_training import batch, same, settings, weights

WITH_LOSS = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "qwen3_next")


def made(method: str, **fields: Any) -> Any:
    """The smallest member of a family."""
    kind: Any = Design.techniques()[method]
    return new_model(next(iter(kind(**fields).ladder())).config(400), seed=0)


@pytest.mark.parametrize("method", WITH_LOSS)
def test_the_loss_is_upstreams(method: str) -> None:
    """Cross-entropy and balancing loss add up to what transformers' own forward pass with labels returns."""
    import torch

    model = made(method, router_aux_loss_coef=0.5)
    ids = torch.randint(0, 400, (2, 17), generator=torch.Generator().manual_seed(0))
    inputs, labels = ids[:, :-1], ids[:, 1:]
    with torch.no_grad():
        loss, uneven = training_losses(model, inputs, labels)
        # transformers shifts labels itself: hand it the inputs, the last label aside
        upstream = model(input_ids=inputs, labels=inputs, output_router_logits=True, use_cache=False)
        shifted = inputs.roll(-1, 1).clone()
        shifted[:, -1] = IGNORED
        own, _ = training_losses(model, inputs, shifted)
        plain = next_token_loss(model, inputs, labels)
    assert float(loss) == pytest.approx(float(plain)), "validation knows no balancing loss"
    assert float(uneven) == pytest.approx(0.5 * float(upstream.aux_loss), rel=1e-5)
    assert float(own + uneven) == pytest.approx(float(upstream.loss), rel=1e-5)


def test_padding_is_not_balanced() -> None:
    """The balancing loss of a padded batch is that of its real tokens."""
    import torch

    model = made("mixtral")
    ids = torch.arange(3, 15)[None]
    padded = torch.cat([ids, torch.zeros_like(ids)], 1)
    labels = torch.full_like(padded, IGNORED)
    labels[:, 11] = 5
    with torch.no_grad():
        _, bare = training_losses(model, ids, labels[:, :12])
        _, uneven = training_losses(model, padded, labels)
    assert float(uneven) == pytest.approx(float(bare), rel=1e-5)


@pytest.mark.parametrize("method", ["llama", "deepseek_v3", "mamba2"])
def test_families_without_such_a_loss_have_none(method: str) -> None:
    """Dense models, and those balanced by a bias."""
    inputs, labels = batch(0)
    assert training_losses(made(method), inputs, labels)[1] is None


def test_the_bias_moves_against_the_load() -> None:
    """After a step every expert above the mean load has a lower bias, every one below a higher, by the same amount."""
    import torch

    model = made("deepseek_v3", first_k_dense_replace=1)
    balance = BiasBalance(model)
    with balance.watching():
        next_token_loss(model, *batch(0))
    balance.update()
    (router,) = balance.routers
    load = balance.loads[router].float()
    assert load.sum() == 2 * 32 * router.top_k
    assert torch.equal(getattr(router, BIAS), RATE * torch.sign(load.mean() - load))
    model.requires_grad_(False)
    assert not BiasBalance(model).routers, "frozen routers keep their bias: an adapter alone must make the model"


def test_parts_of_a_step_are_one_load() -> None:
    """In two parts the load is what it is in one."""
    inputs, labels = batch(0)
    loads = []
    for parts in (((0, 2),), ((0, 1), (1, 2))):
        model = made("deepseek_v3", first_k_dense_replace=1)
        balance = BiasBalance(model)
        with balance.watching():
            for start, end in parts:
                next_token_loss(model, inputs[start:end], labels[start:end])
        (load,) = balance.loads.values()
        loads.append(load.tolist())
    assert loads[0] == loads[1]


@pytest.mark.slow
def test_a_resumed_run_has_the_same_biases(tmp_path: Path) -> None:
    """The bias is no parameter, and is in the checkpoint all the same: weights and biases are bit for bit the same."""
    fields = {"first_k_dense_replace": 1}
    straight = made("deepseek_v3", **fields)
    Loop(straight, batch, settings(), job(tmp_path / "straight")).run()

    def interrupted(step: int) -> tuple[Any, Any]:
        if step == 7:
            raise KeyboardInterrupt
        return batch(step)

    place = job(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        Loop(made("deepseek_v3", **fields), interrupted, settings(), place).run()
    resumed = made("deepseek_v3", **fields)
    Loop(resumed, batch, settings(), place).run()
    assert any(value.any() for value in balancing_state(resumed).values())
    assert same(weights(straight), weights(resumed))
