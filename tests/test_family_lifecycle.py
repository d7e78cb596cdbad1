"""Every architecture family of the registry, tiny, through every stage: a new one is tested by being registered."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import accounting
from tasks.accounting.lora import trainable_parameters
from tasks.compatibility import problems
from tasks.compress import Compress
from tasks.compress.run import run as compress
from tasks.core.errors import UserError
from tasks.core.measure import Metrics
from tasks.core.schema import validate
from tasks.deploy_profile import DeployProfile
from tasks.deploy_profile.run import run as deploy_profile
from tasks.design import Design
from tasks.design.family import Family
from tasks.design.run import run as design
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.finetune.run import run as finetune
from tasks.ledger.vocabulary import lookup
from tasks.models import Config
from tasks.models.load import load_model, load_tokenizer, save_model
from tasks.params import Params
from tasks.pretrain import Pretrain
from tasks.pretrain.run import run as pretrain
from tests.models import TEXTS, job, tokenizer

pytestmark = pytest.mark.slow

FAMILIES = {name: kind for name, kind in Design.techniques().items() if issubclass(kind, Family)}
VARIANTS = {
    **{name: (name, {}) for name in FAMILIES},
    "deepseek_v3 with experts": ("deepseek_v3", {"first_k_dense_replace": 1}),
}
EVALUATE = Evaluate(context_length=48, sample_tokens=2, max_bytes=128, batch_size=4)
SAID = [{"role": "user", "content": "What is one and one?"}, {"role": "assistant", "content": "It is two."}]
R = 4


@dataclass
class Life:
    """A family's folders and figures, stage by stage."""

    root: Path
    method: str
    config: Config
    designed: Metrics
    pretrained: Metrics
    finetuned: Metrics

    @property
    def tuned(self) -> str:
        """How it was fine-tuned: with an adapter wherever one can be merged."""
        return "full" if self.config["model_type"] == "bitnet" else "lora"

    def params(self, **changes: Any) -> Params:
        """Parameters that say what this life is: nothing in them is impossible, unless `changes` are."""
        values: dict[str, Any] = {
            "design": {"method": self.method},
            "finetune": {"method": self.tuned},
            "compress": {"method": "none"},
            "deploy_profile": {"gguf": [], "serve": "safetensors", "engines": ["transformers"]},
        }
        return validate(Params, values | changes)


def raw(root: Path) -> Path:
    """What the data stage leaves, tiny."""
    data = root / "data"
    (data / "instructions").mkdir(parents=True)
    made = tokenizer()
    made.save_pretrained(data / "tokenizer")
    ids = made("".join(TEXTS[:4]) * 3)["input_ids"]
    for name in ("train", "validation"):
        np.array(ids, dtype="<u2").tofile(data / f"{name}.bin")
        (data / "instructions" / f"{name}.jsonl").write_text((json.dumps({"messages": SAID}) + "\n") * 2)
    (data / "shards.json").write_text(json.dumps({"dtype": "<u2", "vocab_size": 400}))
    (data / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    (data / "instructions" / "test.jsonl").write_text(json.dumps({"messages": SAID}) + "\n")
    return data


@pytest.fixture(scope="module", params=VARIANTS)
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """The smallest member of a family, designed, pretrained for a few steps and fine-tuned for fewer."""
    method, fields = VARIANTS[request.param]
    root = tmp_path_factory.mktemp("life")
    data, init = raw(root), root / "none"
    for folder in ("none", "design", "pretrain", "finetune"):
        (root / folder).mkdir()
    member: Any = next(iter(FAMILIES[method](**fields).ladder()))
    fields = {**member.model_dump(mode="json"), "num_hidden_layers": min(3, member.num_hidden_layers)}
    fields |= {name: 8 for name in ("chunk_size", "mamba_chunk_size") if name in fields}
    choice = validate(Design, {"method": method, method: fields})
    designed = design(choice, data=data, init=init, out=root / "design", job=job(root / "1", "design"))
    config = json.loads((root / "design" / "blueprint.json").read_text())
    schedule = {"warmup_steps": 1}
    first = Pretrain.model_validate(
        {
            "steps": 8,
            "batch_size": 2,
            "context_length": 24,
            "precision": "fp32",
            "learning_rate": 1e-2,
            "schedule": schedule,
        }
    )
    places = {"data": data, "design": root / "design", "init": init}
    pretrained = pretrain(
        first, seed=0, evaluate=EVALUATE, out=root / "pretrain", job=job(root / "2", "pretrain"), **places
    )
    made = Life(root, method, config, designed, pretrained, {})
    second = Finetune.model_validate(
        {"method": made.tuned, "steps": 4, "batch_size": 2, "context_length": 64, "precision": "fp32", "lora": {"r": R},
         "schedule": schedule, "learning_rate": 1e-2}
    )  # fmt: skip
    places = {"data": data, "pretrain": root / "pretrain"}
    out = root / "finetune"
    made.finetuned = finetune(second, seed=0, evaluate=EVALUATE, out=out, job=job(root / "3", "finetune"), **places)
    return made


def logits(model: Any) -> Any:
    """Of two sequences, one of them padded on the right."""
    import torch

    ids = torch.arange(3, 43).reshape(2, 20) * 7 % 400
    ids[1, 12:] = 0
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits.float()


def test_the_blueprint_costs_what_the_model_has(life: Life) -> None:
    """Parameters are those of the trained model; fewer pass a token where there are experts; all figures have a name."""
    assert life.designed["parameters"].value == life.pretrained["parameters"].value
    active, size = life.designed["active_parameters"].value or 0, life.designed["parameters"].value or 0
    assert active == accounting.active_parameters(life.config)
    assert (active < size) == ("experts" in repr(accounting.read(life.config)))
    assert all(lookup(name) and value.value is not None for name, value in life.designed.items())


def test_pretraining_learns_and_what_is_saved_is_what_was_trained(life: Life) -> None:
    """The loss falls; the reloaded model has the validation loss the trained one had; saved again it is the same."""
    from tasks.pretrain.batches import Shard
    from tasks.training.loss import next_token_loss

    with (life.root / "2" / "work" / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0] - 0.1
    model = load_model(life.root / "pretrain")
    shard = Shard(life.root / "data", "validation", 24, "cpu")
    held = list(range(min(shard.sequences, 64)))
    again = float(next_token_loss(model, *shard.take(held)).detach())
    assert again == pytest.approx(life.pretrained["validation_loss"].value, rel=1e-4)
    save_model(model, load_tokenizer(life.root / "pretrain"), life.root / "again")
    assert logits(load_model(life.root / "again")).equal(logits(model))


def test_padding_on_the_right_changes_nothing(life: Life) -> None:
    """What stands before the padding has the logits it has without it: the loss may leave masks out."""
    import torch

    model = load_model(life.root / "pretrain")
    ids = (torch.arange(3, 15) * 7 % 400)[None]
    with torch.inference_mode():
        alone = model(input_ids=ids, use_cache=False).logits
        padded = model(input_ids=torch.cat([ids, torch.zeros_like(ids)], 1), use_cache=False).logits[:, :12]
    torch.testing.assert_close(alone, padded, atol=1e-4, rtol=1e-4)


def test_finetuning_merges_what_it_trained(life: Life) -> None:
    """Held-out answers get likelier; base and adapter together are the merged model; its size is the one accounted."""
    import torch
    from peft import PeftModel

    metrics = life.finetuned
    assert (metrics["validation_loss"].value or 9) < (metrics["validation_loss_before"].value or 0)
    if life.tuned == "full":
        assert metrics["trainable_parameters"].value == metrics["parameters"].value
        return
    assert metrics["trainable_parameters"].value == trainable_parameters(life.config, R, "all-linear")
    adapted = PeftModel.from_pretrained(load_model(life.root / "pretrain"), life.root / "finetune" / "adapter").eval()
    merged = logits(load_model(life.root / "finetune"))
    torch.testing.assert_close(logits(adapted), merged, atol=1e-3, rtol=1e-3)
    assert not merged.allclose(logits(load_model(life.root / "pretrain")), atol=1e-3)


@pytest.mark.parametrize("method", list(Compress.techniques()))
def test_compression_works_or_is_refused_in_time(life: Life, method: str, tmp_path: Path) -> None:
    """A technique that the parameters alone rule out is refused by the stage too; any other keeps every parameter."""
    params = life.params(compress={"method": method})
    where = {"data": life.root / "data", "finetune": life.root / "finetune", "out": tmp_path / "out"}
    if found := problems(params, life.config):
        assert found[0].startswith(f"compress.method: found {method}")
        with pytest.raises(UserError, match="compress"):
            compress(params.compress, seed=0, evaluate=EVALUATE, job=job(tmp_path, "compress"), **where)
        return
    metrics = compress(params.compress, seed=0, evaluate=EVALUATE, job=job(tmp_path, "compress"), **where)
    assert metrics["parameters"].value == life.designed["parameters"].value
    assert math.isfinite(metrics["bits_per_byte"].value or math.nan)
    has_experts = life.designed["active_parameters"].value != life.designed["parameters"].value
    if method != "none" and has_experts:
        assert "experts.down_proj" in metrics["model_bytes"].note
        assert "left as they are" in metrics["model_bytes"].note


def test_gguf_is_refused_before_anything_runs(life: Life, tmp_path: Path) -> None:
    """The parameters alone tell what the exporter will say of this architecture."""
    from tasks.deploy_profile.gguf_export import Exporter

    written = {"gguf": ["F16"], "serve": "F16", "engines": ["llama_cpp"]}
    found = problems(life.params(deploy_profile=written), life.config)
    if not found:
        assert Exporter(life.root / "finetune").write(tmp_path, "F16").bytes
        return
    assert all("set deploy_profile.gguf: []" in sentence for sentence in found)
    with pytest.raises(UserError, match="cannot be written as GGUF"):
        Exporter(life.root / "finetune")


@pytest.mark.parametrize("life", ["mixtral", "rwkv"], indirect=True)
def test_a_family_without_gguf_is_delivered_as_safetensors(life: Life, tmp_path: Path) -> None:
    """Profiled under transformers, delivered as its weight files; a token reads the weights of its own experts alone."""
    values = {"gguf": [], "serve": "safetensors", "engines": ["transformers"], "prompt_tokens": 8, "max_new_tokens": 4}
    section = validate(DeployProfile, {**values, "repeats": 1})
    where = {"data": life.root / "data", "compress": life.root / "finetune", "out": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    shell = job(tmp_path, "deploy_profile")
    shell.bandwidth_bytes_per_second = 1e10
    metrics = deploy_profile(section, seed=0, evaluate=EVALUATE, job=shell, **where)
    assert metrics["delivery_bytes"].value == metrics["model_bytes/safetensors"].value
    assert (metrics["decode_tokens_per_second/transformers"].value or 0) > 0
    active = life.designed["active_parameters"].value or 0
    assert f"x {4 * active} B" in metrics["mbu/transformers"].note
    assert json.loads((tmp_path / "out" / "profile.json").read_text())["serve"] == "safetensors"
    assert all(lookup(name) for name in metrics)
