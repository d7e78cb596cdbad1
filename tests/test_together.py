"""Several adapters from one base in one process: the same bytes as alone, and the base in memory once."""

from __future__ import annotations

import json
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.finetune.run import run
from tasks.finetune.shared.adapter import PeftTechnique
from tasks.finetune.together import Together, main, train
from tasks.models.adapter import mark_unmerged
from tasks.models.load import load_model, new_model, read_config, save_model
from tests.models import TEXTS, config, job, tokenizer
from tests.test_finetune import CHAT

COMMON = {"steps": 3, "batch_size": 2, "context_length": 128, "precision": "fp32", "learning_rate": 5e-3}
FILE = "adapter_model.safetensors"
ADAPTERS: dict[str, dict[str, Any]] = {
    "small": {**COMMON, "lora": {"r": 2}},
    "noisy": {**COMMON, "lora": {"r": 8, "lora_dropout": 0.1}, "neftune_noise_alpha": 5.0},
    "two-layers": {
        **COMMON,
        "lora": {"target_modules": ["q_proj", "v_proj"]},
        "optimizer": {"method": "lion"},
        "gradient_checkpointing": "full",
    },
}

SHARING = [
    name
    for name, kind in Finetune.techniques().items()
    if issubclass(kind, PeftTechnique) and kind.begin is PeftTechnique.begin
]
"""Methods that only put an adapter beside frozen weights."""
BESIDE: dict[str, dict[str, Any]] = {
    "llama_adapter": {"adapter_layers": 1},
    "prefix_tuning": {"num_virtual_tokens": 4, "prefix_projection": True},
    "p_tuning": {"num_virtual_tokens": 4},
    "ia3": {"target_modules": ["v_proj"], "feedforward_modules": []},
}
"""What a second adapter of the method has otherwise."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny."""
    root = tmp_path_factory.mktemp("base")
    save_model(new_model(config(), seed=0), tokenizer(), root / "pretrain")
    (root / "data" / "instructions").mkdir(parents=True)
    for name in ("train", "validation", "test"):
        lines = [json.dumps({"messages": CHAT[: 2 * (1 + n % 2)]}) + "\n" for n in range(4)]
        (root / "data" / "instructions" / f"{name}.jsonl").write_text("".join(lines))
    (root / "data" / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    return root


def asked(base: Path, adapters: dict[str, dict[str, Any]]) -> Together:
    """These adapters of that base."""
    return validate(Together, {"base": str(base / "pretrain"), "data": str(base / "data"), "adapters": adapters})


def alone(base: Path, out: Path, values: dict[str, Any]) -> bytes:
    """The adapter's weights as the finetune stage makes them."""
    out.mkdir(parents=True)
    places = {"data": base / "data", "pretrain": base / "pretrain"}
    evaluate = Evaluate(context_length=64, sample_tokens=2)
    run(validate(Finetune, values), seed=0, evaluate=evaluate, out=out, job=job(out.parent), **places)
    return (out / "adapter" / FILE).read_bytes()


def test_together_is_alone_bit_for_bit(base: Path, tmp_path: Path) -> None:
    """Every adapter has the bytes the stage gives it alone, whatever was trained before it, and plain peft loads it."""
    from peft import PeftModel

    done = train(asked(base, ADAPTERS), tmp_path / "out", tmp_path / "work")
    for name, values in ADAPTERS.items():
        made = (tmp_path / "out" / name / FILE).read_bytes()
        assert made == alone(base, tmp_path / name / "out", values), name
        assert done.metrics[name]["validation_loss"].value is not None
    PeftModel.from_pretrained(load_model(base / "pretrain"), tmp_path / "out" / "two-layers")


@pytest.mark.parametrize("method", SHARING)
def test_every_method_that_may_share_is_alone_bit_for_bit(base: Path, tmp_path: Path, method: str) -> None:
    """Two of its adapters have the files the stage gives each alone, and only its own numbers are trained."""
    common = {**COMMON, "method": method, "context_length": 108}
    adapters = {"one": common, "other": {**common, method: BESIDE.get(method, {})}}
    done = train(asked(base, adapters), tmp_path / "out", tmp_path / "work")
    for name, values in adapters.items():
        technique = validate(Finetune, values).technique
        assert (tmp_path / "out" / name / FILE).read_bytes() == alone(base, tmp_path / name / "out", values), name
        config = (tmp_path / folder / "adapter_config.json" for folder in (f"out/{name}", f"{name}/out/adapter"))
        assert len({file.read_text() for file in config}) == 1
        trained = sum(map(prod, technique.trained_shapes(read_config(base / "pretrain"))))
        assert done.metrics[name]["trainable_parameters"].value == trained


def test_the_base_is_in_memory_once(base: Path, tmp_path: Path) -> None:
    """Bytes of distinct storages: one base and the adapters, and the base's are its own still."""
    import torch

    done = train(asked(base, ADAPTERS), tmp_path / "out", tmp_path / "work")
    plain = load_model(base / "pretrain").float()
    held = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in done.model.parameters()}
    adapters = sum(4 * int(done.metrics[name]["trainable_parameters"].value or 0) for name in ADAPTERS)
    assert sum(held.values()) == sum(4 * p.numel() for p in plain.parameters()) + adapters
    kept = dict(done.model.get_base_model().named_parameters())
    for name, parameter in plain.named_parameters():
        same = kept.get(name, kept.get(f"{name.removesuffix('.weight')}.base_layer.weight"))
        assert torch.equal(parameter, same), name


def test_killed_it_goes_on(base: Path, tmp_path: Path) -> None:
    """Killed in the second adapter, the same command ends in the same bytes, and does no step of the first again."""
    straight = tmp_path / "straight"
    train(asked(base, ADAPTERS), straight, tmp_path / "work")
    seen = []

    def killed(name: str, place: Path) -> Any:
        seen.append(name)
        if name == "noisy":
            raise KeyboardInterrupt
        return job(place.parent, name).__class__(name, place)

    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        train(asked(base, ADAPTERS), again, tmp_path / "work-2", killed)
    done = train(asked(base, ADAPTERS), again, tmp_path / "work-2")
    assert done.metrics["small"]["repeated_steps"].value == 0
    for name in ADAPTERS:
        one, other = (folder / name / FILE for folder in (straight, again))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ({}, "adapters: .*at least 1"),
        ({"a": COMMON, "b": {**COMMON, "method": "ia3"}}, "adapters.b: found finetune.method ia3.*IA3.*LORA"),
        ({"a": {**COMMON, "method": "p_tuning"}}, "adapters.a.context_length: found 128; .* 108 are left"),
        ({"a": {**COMMON, "method": "full"}}, "adapters.a: found finetune.method full"),
        ({"a.b": COMMON}, "found the name 'a.b'"),
        ({"a": {**COMMON, "steps": 0}}, "adapters.a.steps: found 0"),
        ({"a": {**COMMON, "lora": {"target_modules": ["nothing"]}}}, "adapters.a: finetune.lora.target_modules"),
    ],
)
def test_what_can_t_share_a_base_is_said(base: Path, tmp_path: Path, adapters: dict[str, Any], said: str) -> None:
    """Before anything is loaded: which adapter, and why."""
    with pytest.raises(UserError, match=said):
        train(asked(base, adapters), tmp_path / "out", tmp_path / "work")


def test_wrong_folders_are_said(base: Path, tmp_path: Path) -> None:
    """A base that is nothing without its adapter, and data that holds no rows."""
    told = asked(base, {"a": COMMON})
    with pytest.raises(UserError, match=f"data: found '{tmp_path}', which holds no instructions"):
        train(told.model_copy(update={"data": str(tmp_path)}), tmp_path / "out", tmp_path / "work")
    shutil.copytree(base / "pretrain", tmp_path / "apart")
    mark_unmerged(tmp_path / "apart")
    with pytest.raises(UserError, match=r"base .*apart': its adapter could not be merged"):
        train(told.model_copy(update={"base": str(tmp_path / "apart")}), tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_the_command_writes_a_report(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m tasks.finetune.together` leaves a folder per adapter and what it took."""
    from ruamel.yaml import YAML

    told = {"base": str(base / "pretrain"), "data": str(base / "data"), "adapters": {"small": ADAPTERS["small"]}}
    with (tmp_path / "adapters.yaml").open("w") as file:
        YAML().dump(told, file)
    monkeypatch.setattr("sys.argv", ["together", str(tmp_path / "adapters.yaml"), "--out", str(tmp_path / "out")])
    assert main() == 0
    report = json.loads((tmp_path / "out" / "together.json").read_text())
    assert report["together"]["peak_memory_bytes"]["value"] > 0
    assert report["adapters"]["small"]["tokens"]["value"] > 0
    (tmp_path / "adapters.yaml").write_text("base: x\n")
    assert main() == 2
