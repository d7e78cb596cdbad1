"""What the LoRA family refuses, in words; and that LoRA+ goes with every optimizer."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.finetune import Finetune
from tasks.finetune.adalora import AdaLora
from tasks.finetune.lora_plus import two_speeds
from tasks.finetune.qlora import QLora
from tasks.models.load import new_model
from tasks.optimizers import Optimizer
from tests.models import config, plan
from tests.test_finetune_low_rank import KINDS

BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
TERNARY = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


@pytest.mark.parametrize("method", KINDS)
def test_what_does_not_fit_is_refused_in_words(method: str) -> None:
    """From the config alone: layers that aren't there, ternary weights, quantized ones, a rank above a layer's size."""
    kind = KINDS[method]
    assert kind().refuse(config()) == ""
    assert "q_proj" in kind(target_modules=["no_such_layer"]).refuse(config())
    assert "ternary" in kind().refuse(config(quantization_config=TERNARY))
    assert "gptq already: start from it unquantized" in kind().refuse(
        config(quantization_config={"quant_method": "gptq"})
    )
    if method != "qlora":
        assert "finetune.method to qlora" in kind().refuse(config(quantization_config=BITS))
    said = kind(**{kind.rank_field: 33}).refuse(config())
    assert f"finetune.{method}.{kind.rank_field}: found 33" in said
    assert "layer model.layers.0.self_attn.k_proj has 64 inputs and 32 outputs: lower it to 32" in said


def test_qlora_takes_a_base_that_is_quantized_as_it_says() -> None:
    """bitsandbytes' weights are trained on where the fields are theirs; sizes the 4-bit kernels can't take are refused."""
    double = {**BITS, "bnb_4bit_use_double_quant": True}
    assert QLora().refuse(config(quantization_config=double)) == ""
    assert "bnb_4bit_quant_type nf4" in QLora(bnb_4bit_quant_type="fp4").refuse(config(quantization_config=double))
    assert "load_in_8bit None" in QLora(bits=8).refuse(config(quantization_config=double))
    odd = config(hidden_size=48, intermediate_size=80)
    assert "multiples of 64" in QLora().refuse(odd)
    assert QLora(bits=8).refuse(odd) == ""


def test_adalora_says_what_it_needs() -> None:
    """Steps between the first and the last cut, gradients after the step, and ranks to cut."""
    model = new_model(config(), seed=0)
    with pytest.raises(UserError, match=r"tinit 2 and tfinal 2 in finetune.steps 4"):
        AdaLora(tinit=2, tfinal=2).begin(model, plan())
    with pytest.raises(UserError, match="leaves no gradients"):
        AdaLora().begin(model, plan(optimizer=Optimizer(method="lomo").technique))
    with pytest.raises(UserError, match="target_r 8 must be below init_r 8"):
        validate(Finetune, {"adalora": {"init_r": 8}}, "finetune")


@pytest.mark.parametrize("method", Optimizer.techniques())
def test_b_moves_as_much_faster_as_it_is_told(method: str) -> None:
    """Under every optimizer the first step of A is what it is without LoRA+, and B's is `loraplus_lr_ratio` times as far."""
    import torch

    chosen: Any = Optimizer.techniques()[method]()
    moved = []
    for optimizer in (chosen, two_speeds(chosen, 3.0)):
        torch.manual_seed(0)
        named = [(f"{i}.lora_{x}.default.weight", torch.nn.Parameter(torch.randn(16, 16))) for i in "01" for x in "AB"]
        before = [parameter.detach().clone() for _, parameter in named]
        built = optimizer.build(named, 1e-3, 0.0)
        if optimizer.schedule_free:
            built.train()
        for group in built.param_groups:
            group["lr"] = 1e-3 * group.get("lr_scale", 1.0)
        loss = sum((parameter**2).sum() for _, parameter in named)
        if optimizer.zeroth_order:
            built.estimate(lambda values=named: float(sum((p.detach() ** 2).sum() for _, p in values)), 1e9)
        elif optimizer.in_backward:
            with built.moving(1.0):
                loss.backward()
        else:
            loss.backward()
        built.step()
        moved.append([parameter.detach() - old for (_, parameter), old in zip(named, before, strict=True)])
    for number, (plain, split) in enumerate(zip(*moved, strict=True)):
        assert torch.allclose(split, plain * (3 if number % 2 else 1), rtol=1e-3, atol=1e-5)
        assert float(plain.abs().max()) > 1e-5
