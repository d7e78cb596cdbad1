"""NEFTune: noise on embeddings while training, and only then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.finetune.shared.noise import noisy
from tasks.models.load import new_model
from tests.finetuned import finetuned, losses, prepare
from tests.models import config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, with chats of many lengths."""
    return prepare(tmp_path_factory.mktemp("base"))


def test_noise_is_of_training_alone() -> None:
    """At most alpha / sqrt(L d), L that of the chat where rows are shared; the same seed, the same noise; none in eval."""
    import torch

    model = new_model(config(), 0)
    decoder, seen = model.model, []
    decoder.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    ids = torch.arange(100)[None]
    positions = torch.cat([torch.arange(75), torch.arange(25)])[None]

    def read(train: bool, **more: Any) -> Any:
        torch.manual_seed(3)
        model.train(train)
        decoder(input_ids=ids, use_cache=False, **more)
        return (seen.pop() - model.get_input_embeddings()(ids)).detach()

    assert not read(True).any()
    with noisy(model, 5.0):
        noise, packed = read(True), read(True, position_ids=positions)
        assert not read(False).any()
        assert torch.equal(noise, read(True))
    assert not read(True).any()
    assert 0.9 < float(noise.abs().max()) / (5 / (100 * 64) ** 0.5) <= 1.001
    for part, length in ((slice(0, 75), 75), (slice(75, 100), 25)):
        assert 0.9 < float(packed[:, part].abs().max()) / (5 / (length * 64) ** 0.5) <= 1.001


def test_noise_changes_training_and_no_validation(base: Path, tmp_path: Path) -> None:
    """The loss before training is the same with noise, the curve is not, and two noisy runs are the same."""
    outs = [tmp_path / name / "out" for name in "abc"]
    plain = finetuned(base, outs[0])
    noisy_ones = [finetuned(base, out, neftune_noise_alpha=5.0) for out in outs[1:]]
    assert noisy_ones[0]["validation_loss_before"].value == plain["validation_loss_before"].value
    assert losses(outs[1]) != losses(outs[0])
    assert (outs[1] / "model.safetensors").read_bytes() == (outs[2] / "model.safetensors").read_bytes()
