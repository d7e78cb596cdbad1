"""Ternary layers: what they compute with, how gradients pass them, and what others make of the saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.design.bitnet import BitNet
from tasks.models.load import load_model, new_model, save_model
from tests.models import tokenizer

CONFIG = BitNet(
    hidden_size=128, intermediate_size=256, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2
).config(400)


def effective(layer: Any) -> Any:
    """The weight a linear layer without a bias computes with: what it makes of the unit vectors."""
    import torch

    return layer(torch.eye(layer.in_features)).T


def test_ternary_layers_compute_with_three_values(tmp_path: Path) -> None:
    """All linear layers but the output layer, before and after a file: -s, 0 and s, each weight's nearest."""
    import torch

    model = new_model(CONFIG, seed=0)
    save_model(model, tokenizer(), tmp_path)
    for one in (model, load_model(tmp_path)):
        layers = {n: m for n, m in one.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
        assert len(layers) == 2 * 7
        for layer in layers.values():
            used, kept = effective(layer).detach(), layer.weight.detach()
            mean = kept.abs().mean()
            assert len(kept.unique()) > 1000
            torch.testing.assert_close(used.unique(), torch.stack([-mean, 0 * mean, mean]))
            torch.testing.assert_close(used, (kept / mean).round().clamp(-1, 1) * mean)


def test_gradients_pass_the_rounding() -> None:
    """Straight through: the gradients of input and weight are a linear layer's with the rounded operands."""
    import torch

    from tasks.models.ternary import TernaryLinear, eight_bits, ternary

    layer, inputs = TernaryLinear(8, 4, bias=False), torch.randn(3, 8, requires_grad=True)
    upstream = torch.randn(3, 4)
    layer(inputs).backward(upstream)
    torch.testing.assert_close(inputs.grad, upstream @ ternary(layer.weight.detach()))
    torch.testing.assert_close(layer.weight.grad, upstream.T @ eight_bits(inputs.detach()))


def test_eight_bits_are_steps_of_the_largest() -> None:
    """Activations become multiples of a 127th of their token's largest, at most half a step away."""
    import torch

    from tasks.models.ternary import eight_bits

    exact = torch.randn(5, 64)
    step = exact.abs().amax(-1, keepdim=True) / 127
    rounded = eight_bits(exact)
    torch.testing.assert_close((rounded / step).round(), rounded / step, atol=1e-4, rtol=0)
    assert bool(((rounded - exact).abs() <= step / 2 + 1e-6).all())


def test_a_ternary_model_says_so_to_others(tmp_path: Path) -> None:
    """The saved config has transformers round the weights too: whoever loads the folder computes what we do."""
    import json

    model = new_model(CONFIG, seed=0)
    for folder in (tmp_path / "once", tmp_path / "twice"):
        save_model(model, tokenizer(), folder)
        asked = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
        assert (asked["quant_method"], asked["linear_class"], asked["quantization_mode"]) == (
            "bitnet",
            "autobitlinear",
            "online",
        )
        model = load_model(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_transformers_computes_the_same(tmp_path: Path) -> None:
    """Its own layers, in a model it loads by itself from the saved folder, give our logits."""
    import torch
    from transformers import AutoModelForCausalLM

    ours = new_model(CONFIG, seed=0)
    save_model(ours, tokenizer(), tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
    assert {type(module).__name__ for module in theirs.modules()} >= {"AutoBitLinear"}
    tokens = torch.arange(3, 40)[None]
    with torch.inference_mode(), torch.compiler.set_stance("force_eager"):
        torch.testing.assert_close(ours(input_ids=tokens).logits, theirs.eval()(input_ids=tokens).logits)
