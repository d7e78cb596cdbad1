"""The LoRA family: what each method begins with, trains, costs and delivers; and what it refuses."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tasks.acquire.package import Package
from tasks.core.job import Job
from tasks.finetune import Finetune
from tasks.finetune.adalora import AdaLora
from tasks.finetune.dora import Dora
from tasks.finetune.loftq import LoftQ
from tasks.finetune.pissa import Pissa
from tasks.finetune.qlora import QLora
from tasks.finetune.shared.low_rank import Targeted
from tasks.finetune.shared.quantized import Quantized
from tasks.models.load import load_model, read_config, weight_bytes
from tests.models import begun
from tests.test_finetune import finetuned, made

KINDS = {name: kind for name, kind in Finetune.techniques().items() if issubclass(kind, Targeted)}
VARIANTS: dict[str, Any] = {name: kind() for name, kind in KINDS.items()} | {
    "adalora": AdaLora(init_r=6, target_r=3, tinit=1, tfinal=2),
    "dora, dropout": Dora(lora_dropout=0.1),
    "qlora, 8 bits": QLora(bits=8),
    "qlora, fp4": QLora(bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=False),
}
NEAR = ("pissa", "olora")
"""They begin as the base but for rounding."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny."""
    return made(tmp_path_factory.mktemp("low-rank"))


def logits(model: Any) -> Any:
    """Of a few tokens, nothing dropped; 8-bit layers multiply what they hold, as in training, without rounding the input."""
    import torch

    for module in model.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


@pytest.mark.parametrize("name", VARIANTS)
def test_the_first_step_begins_where_it_should(base: Path, name: str) -> None:
    """What is trained has the shapes that were predicted; the model computes what its base does, or LoftQ's, what was lost."""
    import torch

    technique, folder = VARIANTS[name], base / "pretrain"
    before = logits(technique.load(folder))
    tuning = begun(technique, technique.load(folder), base=folder)
    trained = [tuple(p.shape) for p in tuning.model.parameters() if p.requires_grad]
    assert sorted(trained) == sorted(technique.trained_shapes(read_config(folder)))
    assert tuning.trainable() == sum(map(prod, trained))
    after, exact = logits(tuning.model), logits(load_model(folder))
    if isinstance(technique, LoftQ):
        assert (after - exact).norm() < 0.8 * (before - exact).norm()
    elif name in NEAR:
        assert torch.allclose(after, before, atol=1e-4)
    else:
        assert torch.equal(after, before)


@pytest.mark.parametrize("name", VARIANTS)
def test_flops_are_those_of_the_operators_that_run(base: Path, name: str) -> None:
    """Forward and backward, penalty included, within one percent of the arithmetic; so is a batch, from single rows."""
    import torch

    from tasks.training.flops import Flops, counting
    from tasks.training.loss import next_token_loss

    technique, folder, length = VARIANTS[name], base / "pretrain", 48
    tuning = begun(technique, technique.load(folder).train(), base=folder)
    tuning.model.train()

    def step(length: int, labelled: int, sequences: int) -> None:
        ids = torch.arange(length).repeat(sequences, 1)
        labels = ids.clone()
        labels[:, labelled:] = -100
        loss = next_token_loss(tuning.model, ids, labels)
        penalty = tuning.penalty()
        (loss if penalty is None else loss + penalty).backward()

    with counting() as counter:
        step(length, length // 2, 3)
    settings = read_config(folder)
    expected = 3 * length * technique.flops_per_token(settings, length, 0.5) + technique.flops_per_pass(settings)
    assert counter.total == pytest.approx(expected, rel=0.01)
    assert Flops(step, fixed=tuning.fixed).of(3, length, 3 * length // 2) == pytest.approx(counter.total, rel=1e-3)
    assert tuning.fixed == bool(technique.flops_per_pass(settings))


# peft's warning, of its own AdaLoRA, which reads the keys well
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys")
@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_delivered(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Plain peft loads the adapter on the base as it was (or quantized as it was), and that computes what the merged model
    does; shapes and bytes are those that were said; killed and resumed, every byte is the same."""
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    technique = VARIANTS[name]
    method, folder = technique.method, base / "pretrain"
    changes = {"method": method, method: technique, "steps": 6, "checkpoint_every": 2, "learning_rate": 1e-2}
    straight, again = tmp_path / "straight" / "out", tmp_path / "killed" / "out"
    metrics = finetuned(base, straight, **changes)
    _killed_after(5, monkeypatch, lambda: finetuned(base, tmp_path / "killed" / "lost", **changes))
    finetuned(base, again, **changes)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (straight / file).read_bytes() == (again / file).read_bytes(), file
    assert metrics["adapter_bytes"].value == weight_bytes(straight / "adapter")
    merged, unmerged = (
        logits(load_model(straight)),
        PeftModel.from_pretrained(technique.load(folder), straight / "adapter"),
    )
    assert torch.allclose(merged, logits(unmerged), atol=1e-4)
    assert not torch.allclose(merged, logits(technique.load(folder)), atol=1e-3)
    found = sum(tensor.numel() for tensor in load_file(straight / "adapter" / "adapter_model.safetensors").values())
    expected = sum(map(prod, technique.adapter_shapes(read_config(folder))))
    assert found == (pytest.approx(expected, rel=0.2) if isinstance(technique, AdaLora) else expected)


def _killed_after(rows: int, monkeypatch: pytest.MonkeyPatch, attempt: Any) -> None:
    """An attempt that ends, without a word, when that many steps are recorded."""
    record, seen = Job.record, []

    def last(self: Job, **row: Any) -> None:
        record(self, **row)
        seen.append(row)
        if len(seen) == rows:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Job, "record", last)
        with pytest.raises(KeyboardInterrupt):
            attempt()


def test_adalora_ends_with_its_ranks(base: Path, tmp_path: Path) -> None:
    """The ranks that are delivered are as many as were asked for, not the same in every layer; the penalty has a column."""
    from safetensors.torch import load_file

    out, technique = tmp_path / "out", AdaLora(init_r=6, target_r=3, tinit=1, tfinal=2)
    finetuned(base, out, method="adalora", adalora=technique, steps=8, learning_rate=1e-2)
    kept = load_file(out / "adapter" / "adapter_model.safetensors")
    ranks = [tensor.shape[0] for name, tensor in kept.items() if name.endswith("lora_E")]
    assert sum(ranks) == 3 * len(ranks)
    assert len(set(ranks)) > 1
    header, *rows = (tmp_path / "work" / "history.csv").read_text().splitlines()
    penalties = [float(row.split(",")[header.split(",").index("penalty")]) for row in rows]
    assert all(penalties)
    assert penalties[-1] < penalties[0]


def test_the_penalty_is_pefts(base: Path) -> None:
    """What is added to the loss is what peft's own model adds where it is given labels."""
    import torch

    tuning = begun(AdaLora(), load_model(base / "pretrain"))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        whole = tuning.model(input_ids=ids, labels=ids).loss
        plain = tuning.model.base_model.model(input_ids=ids, labels=ids).loss
        penalty: Any = tuning.penalty()
        assert float(penalty) == pytest.approx(float(whole - plain), rel=1e-5)


def test_qlora_goes_on_with_a_quantized_folder(base: Path, tmp_path: Path) -> None:
    """A folder of 4-bit weights as compress leaves it is trained on as it is; what is merged is dequantized."""
    import torch

    from tasks.models.load import load_tokenizer, save_model

    technique, place = QLora(), tmp_path / "quantized"
    save_model(technique.load(base / "pretrain"), load_tokenizer(base / "pretrain"), place / "pretrain")
    (place / "data").symlink_to(base / "data")
    finetuned(place, tmp_path / "run" / "out", method="qlora", qlora=technique, learning_rate=1e-2)
    merged = load_model(tmp_path / "run" / "out")
    assert "quantization_config" not in read_config(tmp_path / "run" / "out")
    assert not torch.allclose(logits(merged), logits(technique.load(place / "pretrain")), atol=1e-2)


@pytest.mark.parametrize("name", VARIANTS)
def test_bytes_of_the_base_are_those_in_memory(base: Path, name: str) -> None:
    """What is predicted is what the loaded weights take, scales included."""
    from tasks.models.device import native_bf16

    technique, folder = VARIANTS[name], base / "pretrain"
    model = technique.load(folder)
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        for scales in (
            getattr(parameter, "SCB", None),
            state and state.absmax,
            state and state.state2 and state.state2.absmax,
        ):
            held += scales.numel() * scales.element_size() if scales is not None else 0
    assert technique.base_bytes(read_config(folder), 4, native_bf16()) == pytest.approx(held, rel=0.01)
    if isinstance(technique, Quantized):
        assert held < weight_bytes(folder)


def test_the_first_adapter_outlives_a_kill(base: Path, tmp_path: Path) -> None:
    """PiSSA begun again in the same folder takes the parts it took first, whatever the decomposition says this time."""
    import torch

    model = [begun(Pissa(niter=n), load_model(base / "pretrain"), work=tmp_path).model for n in (1, 8)]
    for one, other in zip(*(m.parameters() for m in model), strict=True):
        assert torch.equal(one, other)
    fresh = begun(Pissa(niter=8), load_model(base / "pretrain")).model
    assert any(
        not torch.equal(one, other) for one, other in zip(model[0].parameters(), fresh.parameters(), strict=True)
    )


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SmolLM2-135M-Instruct, and a few chats."""
    root = made(tmp_path_factory.mktemp("smollm"))
    shutil.rmtree(root / "pretrain")
    Package().make(root / "pretrain")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("method", ["qlora", "dora", "adalora"])
def test_the_real_model_is_trained(smollm: Path, tmp_path: Path, method: str) -> None:
    """Two steps on 135 million weights: the loss falls, shapes and bytes are the arithmetic's."""
    out, folder = tmp_path / "out", smollm / "pretrain"
    metrics = finetuned(smollm, out, method=method, steps=2, learning_rate=1e-3, schedule={"warmup_steps": 0})
    technique = getattr(Finetune(), method)
    assert metrics["validation_loss"].value < metrics["validation_loss_before"].value
    assert metrics["trainable_parameters"].value == sum(map(prod, technique.trained_shapes(read_config(folder))))
    said = sum(4 * prod(shape) for shape in technique.adapter_shapes(read_config(folder)))
    assert metrics["adapter_bytes"].value == pytest.approx(said, rel=0.5 if method == "adalora" else 0.1)
    assert weight_bytes(out) == pytest.approx(weight_bytes(folder), rel=0.01)
