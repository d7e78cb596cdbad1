"""Every method of finetuning on the real SmolLM2-135M-Instruct."""

from __future__ import annotations

import json
import os
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tasks.acquire.package import Package
from tasks.finetune import Finetune
from tasks.finetune.technique import FinetuneTechnique, Tuning
from tasks.models.adapter import with_adapter
from tasks.models.bottleneck import is_bottleneck
from tasks.models.difference import FACTS, with_difference
from tasks.models.load import load_model, read_config
from tasks.optimizers.adamw import AdamW
from tests.models import begun

pytestmark = [
    pytest.mark.slow,
    # gguf's open file
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
    # peft's warning, of norms, which it knows no sizes of
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
    # peft's warnings, of a kernel it can't compile and does without
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension"),
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor to 1"),
    # peft's warning, of its own AdaLoRA, which reads the keys well
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys"),
]
STEPS = {"adalora": 2}
"""More than one: ranks are weighed before they are cut."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model."""
    folder = tmp_path_factory.mktemp("smollm2")
    Package().make(folder)
    return folder


@pytest.fixture(scope="module")
def plain(base: Path) -> Any:
    """What it computes."""
    return logits(load_model(base).float())


def logits(model: Any) -> Any:
    """Of a few tokens (12, V)."""
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(100, 112)[None]).logits[0, -12:].float()


def stepped(tuning: Tuning, steps: int) -> list[float]:
    """Train on the same few tokens by the technique's hooks; the losses before each step and behind the last."""
    import torch

    from tasks.training.loss import next_token_loss

    model, ids = tuning.model.train(), torch.arange(100, 116)[None]
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = tuning.optimizer(AdamW()).build(named, 1e-3, 0.0)
    losses = []
    for step in range(steps):
        tuning.before_step(step, optimizer)
        loss, penalty = next_token_loss(model, ids[:, :-1], ids[:, 1:]), tuning.penalty()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        tuning.after_step(step)
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        return [*losses, float(next_token_loss(model.eval(), ids[:, :-1], ids[:, 1:]))]


def beside(technique: FinetuneTechnique, base: Path, folder: Path) -> Any:
    """The base with what was delivered in `folder/adapter`, by whoever reads such a thing."""
    from peft import PeftModel

    adapter = folder / "adapter"
    if json.loads((adapter / FACTS).read_text()).get("format") == "difference":
        return with_difference(base, adapter).float()
    if is_bottleneck(adapter):
        return with_adapter(load_model(base).float(), folder)
    return PeftModel.from_pretrained(technique.load(base), adapter)


@pytest.mark.parametrize("method", Finetune.techniques())
def test_the_real_model_is_trained_and_delivered(
    base: Path, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A step on 135 million weights: as many numbers are trained as was said, and the loss falls; what is delivered computes
    as much as what was trained, and not what the base does, and so does the merged model where there is one."""
    import torch

    for name in ("CC", "CXX"):  # peft leaves its own choice behind where its kernel for BOFT can't be compiled
        monkeypatch.setenv(name, os.environ.get(name, "gcc"))
    technique: FinetuneTechnique = getattr(Finetune(), method)
    steps = STEPS.get(method, 1)
    tuning = begun(technique, technique.load(base), base=base, work=tmp_path / "work", steps=steps)
    trained, losses = tuning.trainable(), stepped(tuning, steps)
    assert trained == sum(map(prod, technique.trained_shapes(read_config(base))))
    assert losses[-1] < losses[0]
    written = tuning.write(tmp_path / "adapter")
    after = None if technique.merges else logits(tuning.model)
    merged = tuning.merged()
    after = logits(merged) if after is None else after
    assert (merged is None) == (not technique.merges)
    assert torch.isfinite(after).all()
    assert not torch.equal(after, plain)
    del tuning, merged
    if written:
        assert (after - logits(beside(technique, base, tmp_path))).norm() < 1e-2 * plain.norm()
