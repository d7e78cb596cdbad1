"""LoRA's layers as training runs them are peft's."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from tasks.accounting.memory import activation_bytes, weight_copy_bytes
from tasks.finetune.adalora import AdaLora
from tasks.finetune.lora import Lora
from tasks.finetune.olora import Olora
from tasks.finetune.shared.low_rank import Targeted
from tasks.models.load import new_model
from tasks.training.kernels import GATED
from tests.models import adapted, config
from tests.test_predict_memory import saved_bytes

UPPER = r"model\.layers\.[4-7]\..*_proj"
KEEPING: dict[str, tuple[Targeted, bool, str]] = {
    "all layers": (Lora(), True, "fp32"),
    "all layers, bf16": (Lora(), True, "bf16"),
    "all layers, as peft computes them": (Lora(), False, "fp32"),
    "queries and values": (Lora(target_modules=["q_proj", "v_proj"]), True, "fp32"),
    "behind the gate": (Lora(target_modules=["down_proj"]), True, "fp32"),
    "upper half": (Lora(target_modules=UPPER), True, "fp32"),
    "dropout": (Lora(lora_dropout=0.1), True, "fp32"),
    "another start": (Olora(), True, "fp32"),
    "singular parts": (AdaLora(), True, "fp32"),
    "singular parts, bf16": (AdaLora(), True, "bf16"),
}
"""Technique, whether this project's own kernels are used, arithmetic."""


def test_quick_lora_layers_are_pefts() -> None:
    """Loss and gradients of the layers training uses are those of peft's own, and the layers are peft's again afterwards."""
    import torch

    from tasks.training.kernels.low_rank import low_rank
    from tasks.training.loss import next_token_loss

    model = adapted(Lora(r=4, lora_alpha=12), new_model(config(), 0)).train()
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(0, 400, (2, 40))
    block = model.base_model.model.model.layers[0]

    def learned() -> tuple[float, dict[str, Any]]:
        loss = next_token_loss(model, ids, ids)
        loss.backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return float(loss.detach()), found

    plain, expected = learned()
    with low_rank(model):
        assert all("forward" in vars(module) for module in (block.self_attn.q_proj, block.mlp.down_proj, block.mlp))
        again, found = learned()
    assert not any("forward" in vars(module) for module in model.modules())
    assert again == pytest.approx(plain, rel=1e-6)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], atol=1e-5 * float(expected[name].abs().max())), name


@pytest.mark.parametrize("name", KEEPING)
def test_what_updates_keep_is_predicted(name: str) -> None:
    """What autograd keeps beside frozen matrices is known from the config, within what the first block doesn't need."""
    from tasks.training.kernels.attention import blockwise
    from tasks.training.kernels.low_rank import low_rank

    technique, kernels, precision = KEEPING[name]
    made = config(
        hidden_size=256, intermediate_size=704, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2
    )
    with ExitStack() as stack:

        def begin(model: Any) -> Any:
            tuned = adapted(technique, model)
            for kernel in (blockwise, low_rank) if kernels else ():
                stack.enter_context(kernel(tuned))
            return tuned

        measured = saved_bytes(made, 4, 128, precision == "bf16", begin)
    learning, element = technique.learning(made), 2 if precision == "bf16" else 4
    assert learning is not None
    assert learning.beside is not None
    if not kernels:
        learning = replace(learning, beside=replace(learning.beside, gate=False))
    kept = activation_bytes(made, 4 * 128, element=element, context=128, learning=learning)
    assert kept + weight_copy_bytes(made, element) == pytest.approx(measured, rel=0.06)


def test_the_classes_that_are_made_again_are_the_models_own() -> None:
    """Every model type that is said to have a gate of that kind has the class, and its forward pass is that one line."""
    import inspect
    from importlib import import_module

    for kind, name in GATED.items():
        layer = getattr(import_module(f"transformers.models.{kind}.modeling_{kind}"), name)
        assert "down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))" in inspect.getsource(layer.forward)
