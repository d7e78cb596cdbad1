"""LoRA's layers as training runs them are peft's."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.finetune.lora import Lora
from tasks.models.load import new_model
from tests.models import adapted, config


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
