"""A model whose adapter stays beside it, from training to the engine: scored, sampled, compared and delivered with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.compatibility import problems
from tasks.compress import Compress
from tasks.compress.run import run as compress
from tasks.core.errors import OverBudget
from tasks.core.schema import validate
from tasks.deploy_profile import DeployProfile
from tasks.deploy_profile.run import run as deploy
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.models.load import weight_bytes
from tasks.params import Params, override
from tests.models import config, job
from tests.test_finetune import base, finetuned  # noqa: F401 (base is a fixture)

EVALUATE = Evaluate(context_length=64, sample_tokens=4)
APART = [method for method in Finetune.techniques() if not getattr(Finetune(), method).merges]
ENGINE = {"gguf": [], "serve": "safetensors", "engines": ["transformers"]}


@pytest.mark.parametrize("method", APART)
def test_what_was_learned_is_scored_and_kept(base: Path, tmp_path: Path, method: str) -> None:  # noqa: F811
    """The stage's score is that of the adapter, not of the base; uncompressed, the next stage has the same model."""
    out, kept = tmp_path / "finetune" / "out", tmp_path / "compress"
    tuned = finetuned(base, out, method=method, learning_rate=0.2)
    untuned = finetuned(base, tmp_path / "untuned" / "out", steps=0)
    assert tuned["bits_per_byte"].value != pytest.approx(untuned["bits_per_byte"].value, rel=1e-4)
    assert tuned["model_bytes"].value == untuned["model_bytes"].value + tuned["adapter_bytes"].value
    assert tuned["delivery_bytes"].value == tuned["adapter_bytes"].value == weight_bytes(out / "adapter")
    done = compress(
        validate(Compress, {"method": "none"}),
        seed=0,
        evaluate=EVALUATE,
        data=base / "data",
        finetune=out,
        out=kept,
        job=job(tmp_path / "work"),
    )
    assert done["bits_per_byte"].value == done["bits_per_byte_before"].value == tuned["bits_per_byte"].value
    assert (done["label_loyalty"].value, done["fidelity_kl_nats"].value) == (1.0, 0.0)
    assert done["model_bytes"].value == tuned["model_bytes"].value
    files = [path for path in kept.rglob("*") if path.is_file() and path.name != "samples.json"]
    assert done["delivery_bytes"].value == sum(path.stat().st_size for path in files)
    assert (kept / "samples.json").read_bytes() == (out / "samples.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prefix_tuning", "bottleneck"])
def test_the_engine_runs_the_model_with_its_adapter(base: Path, tmp_path: Path, method: str) -> None:  # noqa: F811
    """The process that is profiled generates what the tuned model generates; both files are delivered and counted."""
    import torch

    from tasks.models.load import load_model, load_tokenizer

    tuned, out = tmp_path / "finetune" / "out", tmp_path / "deploy"
    finetuned(base, tuned, method=method, learning_rate=0.2)
    out.mkdir()
    section = validate(DeployProfile, ENGINE | {"prompt_tokens": 8, "max_new_tokens": 4, "repeats": 1})
    place = job(tmp_path / "work", "deploy_profile")
    done = deploy(section, seed=0, evaluate=EVALUATE, data=base / "data", compress=tuned, out=out, job=place)
    assert done["delivery_bytes"].value == weight_bytes(tuned)
    prompt = torch.tensor([json.loads((out / "profile.json").read_text())["prompt"]])
    kept = next((tmp_path / "work" / "work").glob("engine-transformers-*.json"))
    said = json.loads(kept.read_text())["tokens"]
    special = [at for at, token in load_tokenizer(tuned).added_tokens_decoder.items() if token.special]
    own = load_model(tuned).generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False, suppress_tokens=special
    )
    assert said == own[0, 8:].tolist()


@pytest.mark.parametrize("method", ["vera", "fourierft", "prompt_tuning"])
def test_a_stopped_run_goes_on_bit_for_bit(
    base: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """What is drawn at random follows from the seed: stopped and begun again, the adapter is that of an unbroken run."""
    from tasks.training.loop import Loop

    settings: dict[str, Any] = {"method": method, "learning_rate": 0.01, "checkpoint_every": 1}
    whole, halves = tmp_path / "whole" / "out", tmp_path / "halves" / "out"
    finetuned(base, whole, **settings)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_look", lambda loop: "enough" if loop.progress.step == 3 else "")
        with pytest.raises(OverBudget):
            finetuned(base, halves, **settings)
    halves.rmdir()
    finetuned(base, halves, **settings)
    one, other = (out / "adapter" / "adapter_model.safetensors" for out in (whole, halves))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("method", APART)
def test_what_cannot_take_an_adapter_is_refused_before_anything_runs(method: str) -> None:
    """Compression and GGUF are named with what to set instead; set so, nothing stands in the way."""

    def found(**values: Any) -> list[str]:
        blocks = {name.replace("__", "."): value for name, value in values.items()}
        params = validate(Params, override(Params().model_dump(mode="json"), blocks))
        return problems(params, config(max_position_embeddings=1024, hidden_size=128, intermediate_size=256))

    said = found(finetune__method=method, compress__method="int8")
    assert len(said) == 2
    assert said[0].startswith("compress.method: found int8")
    assert "set compress.method to none" in said[0]
    assert "set deploy_profile.gguf: []" in said[1]
    engine = {f"deploy_profile__{name}": value for name, value in ENGINE.items()}
    assert found(finetune__method=method, compress__method="none", **engine) == []


def test_virtual_tokens_need_positions_of_their_own() -> None:
    """A context that fits the model alone and not behind the virtual tokens: which length, how many, what to do."""
    values = {"finetune.method": "p_tuning", "finetune.context_length": 250, "compress.method": "none"}
    engine = {f"deploy_profile.{name}": value for name, value in ENGINE.items()}
    params = validate(Params, override(Params().model_dump(mode="json"), values | engine))
    said = [one for one in problems(params, config(max_position_embeddings=256)) if one.startswith("finetune.context")]
    assert len(said) == 1
    assert "found 250; the model has 256 positions, and finetune.p_tuning takes 20 of them: lower it, or" in said[0]
