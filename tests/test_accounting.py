"""Exact arithmetic of models and adapters against the libraries that build and run them."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import accounting
from tasks.accounting import lora


def config(heads: int, groups: int, tied: bool, head_dim: int | None = None) -> dict[str, Any]:
    """A tiny Llama."""
    return {
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": 320,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        **({"head_dim": head_dim} if head_dim else {}),
    }


SHAPES = {
    "MHA, tied": config(4, 4, True),
    "GQA, untied": config(6, 2, False),
    "MQA, tied": config(4, 1, True),
    "wide heads, untied": config(4, 2, False, head_dim=16),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def build(shape: dict[str, Any]) -> Any:
    """The transformers model of a shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**shape))


def counted(model: Any, length: int, backward: bool) -> float:
    """FLOPs that torch counts in one sequence; its counter doesn't know the fused attention of a CPU."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    ids = torch.zeros(1, length, dtype=torch.long)
    counter: Any = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        if backward:
            loss.backward()
    return float(counter.get_total_flops())


def adapt(model: Any, r: int, targets: str | list[str]) -> Any:
    """The model as the finetune stage adapts it."""
    from tasks.finetune.lora import Lora
    from tests.models import adapted

    return adapted(Lora(r=r, target_modules=targets), model)


@every_shape
def test_parameters_are_transformers_own_count(shape: dict[str, Any]) -> None:
    """Every weight once, tied or not, whatever the heads."""
    assert accounting.parameters(shape) == sum(p.numel() for p in build(shape).parameters())


@every_shape
@pytest.mark.parametrize("length", [16, 40])
def test_flops_are_torch_s_own_count(shape: dict[str, Any], length: int) -> None:
    """Forward pass, and forward and backward of every weight, within half a percent."""
    model = build(shape)
    forward = length * accounting.forward_flops_per_token(shape, length)
    training = length * accounting.training_flops_per_token(shape, length)
    assert counted(model.eval(), length, backward=False) == pytest.approx(forward, rel=0.005)
    assert counted(model.train(), length, backward=True) == pytest.approx(training, rel=0.005)


TARGETS: list[str | list[str]] = [
    "all-linear",
    ["q_proj", "v_proj"],
    ["v_proj"],
    ["k_proj"],
    ["o_proj"],
    ["gate_proj", "down_proj"],
    ["lm_head", "q_proj"],
    r".*layers\.[12]\.mlp\.(up|down)_proj",
    "model.layers.1.self_attn.v_proj",
]


@pytest.mark.parametrize("r", [1, 3, 8])
@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_lora_trains_the_weights_peft_trains(r: int, targets: str | list[str]) -> None:
    """The number of trainable weights is peft's, for every way to name the layers."""
    shape = SHAPES["GQA, untied"]
    model = adapt(build(shape), r, targets)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora.trainable_parameters(shape, r, targets) == trained


@pytest.mark.parametrize("shape", [SHAPES["GQA, untied"], SHAPES["MQA, tied"]], ids=["GQA", "MQA"])
@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_lora_flops_are_torch_s_own_count(shape: dict[str, Any], targets: str | list[str]) -> None:
    """Through a frozen model only what leads to the adapter is computed, within half a percent."""
    if shape["tie_word_embeddings"] and "lm_head" in targets:
        shape = SHAPES["wide heads, untied"]
    length, r = 24, 5
    model = adapt(build(shape), r, targets).train()
    predicted = length * lora.training_flops_per_token(shape, length, r, targets)
    assert counted(model, length, backward=True) == pytest.approx(predicted, rel=0.005)


@every_shape
def test_the_cache_grows_as_predicted(shape: dict[str, Any]) -> None:
    """Bytes per token of transformers' own cache."""
    import torch

    model = build(shape).eval()
    with torch.inference_mode():
        cache = model(input_ids=torch.zeros(1, 10, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 10 * accounting.kv_cache_bytes_per_token(shape, bytes_per_element=4)
