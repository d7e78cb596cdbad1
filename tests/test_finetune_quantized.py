"""Every method on a base that is quantized already: refused in words, or trained and delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.finetune import Finetune
from tasks.finetune.qlora import QLora
from tasks.models.load import load_model, load_tokenizer, read_config, save_model
from tests.models import config
from tests.test_finetune import LEARNING_RATES, finetuned, made

BESIDE = {name for name in Finetune.techniques() if getattr(Finetune(), name).beside_bits}
"""They never touch the base's own weights."""


@pytest.fixture(scope="module", params=[4, 8])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, its weights in so many bits by bitsandbytes."""
    root = made(tmp_path_factory.mktemp("plain"))
    place = tmp_path_factory.mktemp("quantized")
    quantized = QLora(bits=request.param).load(root / "pretrain")
    save_model(quantized, load_tokenizer(root / "pretrain"), place / "pretrain")
    (place / "data").symlink_to(root / "data")
    return place


@pytest.mark.parametrize("method", Finetune.techniques())
def test_a_quantized_base_is_refused_or_trained_on(base: Path, tmp_path: Path, method: str) -> None:
    """What is let through learns, and what it delivers loads and isn't its base; the others say what to do."""
    import torch

    settings = read_config(base / "pretrain")
    if why := getattr(Finetune(), method).refuse(settings):
        assert method not in BESIDE
        assert why.startswith(f"finetune.{'qlora' if method == 'qlora' else f'method: found {method}'}")
        assert "finetune.method to qlora" in why or method == "qlora"
        return
    out = tmp_path / "run" / "out"
    metrics = finetuned(base, out, method=method, learning_rate=LEARNING_RATES.get(method, 5e-3))
    assert metrics["validation_loss"].value < metrics["validation_loss_before"].value
    assert list((out / "adapter").glob("*.safetensors"))
    with torch.no_grad():
        ids = torch.arange(40)[None]
        after, before = (load_model(folder)(ids).logits[:, -40:] for folder in (out, base / "pretrain"))
    assert not torch.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("method", Finetune.techniques())
def test_other_libraries_weights_are_refused(method: str) -> None:
    """No method trains on GPTQ's."""
    said = getattr(Finetune(), method).refuse(config(quantization_config={"quant_method": "gptq"}))
    assert said == f"finetune.method: found {method}; the model's weights are gptq already: start from it unquantized"


@pytest.mark.parametrize("method", sorted(BESIDE))
def test_no_weight_is_packed_for_evaluation_alone(base: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Where the CPU could: gradients flow through no packed weight, and the loss is looked at before the first step."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)

    def packing(model: Any) -> list[bool]:
        return [m.support_avx512bf16_for_cpu for m in model.modules() if hasattr(m, "support_avx512bf16_for_cpu")]

    plain, loaded = packing(load_model(base / "pretrain")), packing(getattr(Finetune(), method).load(base / "pretrain"))
    assert all(plain)
    assert len(loaded) == len(plain)
    assert not any(loaded)
