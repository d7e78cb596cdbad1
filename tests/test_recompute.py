"""Gradient checkpointing: the same loss and gradient as keeping everything, for less memory and counted computation."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from tasks.core.schema import validate
from tasks.design import Design
from tasks.models.load import new_model
from tasks.training.batch import Batch
from tasks.training.loop import Loop
from tasks.training.loss import training_losses
from tasks.training.recompute import blocks_of, everything_kept, recompute
from tests import models
from tests.test_training import batch, same, settings, weights

METHODS = [name for name in Design.techniques() if name != "existing"]


def gradients(config: dict[str, Any], way: str) -> tuple[Any, list[Any]]:
    """Loss and gradients of one batch."""
    import torch

    model = new_model(config, 0).train()
    recompute(model, way)
    ids = torch.randint(0, config["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kernels that aren't installed
        loss, uneven = training_losses(model, ids, ids)
        (loss if uneven is None else loss + uneven).backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["selective", "full"])
@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_every_family_is_the_same(method: str, way: str) -> None:
    """Loss bit for bit, gradients within rounding of the order in which they are added up."""
    import torch

    config = validate(Design, {"method": method, method: {"parameters": 1_500_000}}).technique.blueprint(
        512, Path("none")
    )
    config["num_hidden_layers"] = min(config["num_hidden_layers"], 4)
    if config.get("layer_types"):
        config["layer_types"] = config["layer_types"][: config["num_hidden_layers"]]
    loss, kept = gradients(config, "none")
    again, computed = gradients(config, way)
    assert again.equal(loss)
    assert len(computed) == len(kept)
    for one, other in zip(computed, kept, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("way", ["selective", "full"])
def test_training_ends_in_the_same_weights(way: str, tmp_path: Path) -> None:
    """Ten steps of a Llama with dropout: bit for bit; FLOPs executed grow by a forward pass of the blocks in `full`."""
    found = {}
    for chosen in ("none", way):
        model = new_model(models.config(attention_dropout=0.5), 0)
        made = Loop(model, batch, settings(gradient_checkpointing=chosen), models.job(tmp_path / chosen)).run()
        found[chosen] = weights(model), float(made["flops"].value or 0)
    assert same(found["none"][0], found[way][0])
    ratio = found[way][1] / found["none"][1]
    assert 1.1 < ratio < 4 / 3 if way == "full" else ratio == pytest.approx(1.0)


def test_model_flops_leave_out_what_is_computed_again(tmp_path: Path) -> None:
    """With everything kept a block runs as it did before, and afterwards is computed again as before."""
    model = new_model(models.config(), 0).train()
    loop = Loop(model, batch, settings(gradient_checkpointing="full"), models.job(tmp_path))
    wrapped = blocks_of(model)[0].forward
    one = Batch.of(batch(0))
    executed = loop.work.of(one)
    with everything_kept(model):
        assert loop.work._of(loop.work._count(one), one) < executed
    assert blocks_of(model)[0].forward is wrapped
    loop.work.begin(one)
    assert 3 / 4 < loop.work.useful < 1


def test_an_adapter_is_computed_again_too() -> None:
    """Blocks of a model that peft has wrapped are found, and its adapters get the same gradient."""
    from peft import LoraConfig, get_peft_model

    found = []
    for way in ("none", "full"):
        import torch

        torch.manual_seed(0)
        model: Any = get_peft_model(new_model(models.config(), 0), LoraConfig(r=2, target_modules="all-linear"))
        recompute(model.train(), way)
        training_losses(model, *batch(0))[0].backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert all(one.equal(other) for one, other in zip(*found, strict=True))
