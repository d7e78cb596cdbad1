"""Stage pretrain under every objective: a plain model comes out, it costs what was predicted, mistakes have names."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.ledger.predict.subject import Subject
from tasks.ledger.predict.training import pretrain
from tasks.ledger.vocabulary import lookup
from tasks.models.load import new_model, save_model
from tasks.params import Params, override
from tests import test_pretrain
from tests.models import MACHINE, config, job, tokenizer
from tests.test_pretrain import pretrained

inputs = test_pretrain.inputs
TOKENS = 1500
TEACHER = {"hidden_size": 96, "num_hidden_layers": 1}

OBJECTIVES: dict[str, dict[str, Any]] = {
    "next_token": {"method": "next_token"},
    "multi_token": {"method": "multi_token", "multi_token": {"mtp_num_layers": 3}},
    "top_k": {"method": "distillation", "distillation": {"top_k": 8}},
    "whole": {"method": "distillation", "distillation": {"top_k": None, "temperature": 2.0}},
}


@pytest.fixture
def taught(inputs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The inputs of the stage with a teacher beside them."""
    save_model(new_model(config(**TEACHER), seed=7), tokenizer(), tmp_path / "teacher")
    return {**inputs, "teacher": tmp_path / "teacher"}


def places(taught: dict[str, Path], name: str) -> dict[str, Path]:
    """Those an objective is given: a teacher only if it learns from one."""
    return (
        taught if OBJECTIVES[name]["method"] == "distillation" else {**taught, "teacher": taught["init"].parent / "no"}
    )


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("tied", [True, False])
def test_an_existing_model_goes_on(taught: dict[str, Path], tmp_path: Path, name: str, tied: bool) -> None:
    """From `pretrain.init`: the weights move, and plain transformers finds every one of them and no other."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    shape = config(tie_word_embeddings=tied)
    (taught["design"] / "blueprint.json").write_text(json.dumps(shape))
    save_model(new_model(shape, seed=5), tokenizer(), taught["init"])
    metrics = pretrained(places(taught, name), tmp_path / "out", objective=OBJECTIVES[name], learning_rate=1e-2)
    before, after = (load_file(folder / "model.safetensors") for folder in (taught["init"], tmp_path / "out"))
    assert set(before) == set(after)
    assert not any(after[key].equal(value) for key, value in before.items() if value.dim() == 2)
    model, found = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert metrics["parameters"].value == sum(p.numel() for p in model.parameters())
    with job(tmp_path).history.open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0]
    assert all(lookup(metric) for metric in metrics)


def test_a_student_says_how_like_its_teacher_it_became(taught: dict[str, Path], tmp_path: Path) -> None:
    """Distilled from scratch it is closer to the teacher than untrained; without a teacher nothing is said of one."""
    start = pretrained(taught, tmp_path / "a", objective=OBJECTIVES["top_k"], steps=1, learning_rate=1e-9)
    (tmp_path / "b").mkdir()
    chosen = {"method": "distillation", "distillation": {"alpha": 1.0, "top_k": None}}
    end = pretrained(taught, tmp_path / "b" / "out", objective=chosen, steps=20, learning_rate=1e-2)
    plain = pretrained(places(taught, "next_token"), tmp_path / "c", steps=1)
    name = "fidelity_kl_nats/teacher"
    assert end[name].value < start[name].value
    assert not [metric for metric in plain if "teacher" in metric]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": OBJECTIVES["multi_token"]}, "objective multi_token learns from no teacher"),
        ({"objective": {"method": "multi_token", "multi_token": {"mtp_num_layers": 32}}}, "found 32; sequences of 32"),
        ({"objective": OBJECTIVES["top_k"], "context_length": 80}, r"context_length: found 80; pretrain\.teacher"),
    ],
    ids=["teacher", "depths", "positions"],
)
def test_mistakes_have_names(taught: dict[str, Path], tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """A teacher nobody learns from, depths beyond the sequence, a context beyond the teacher's positions."""
    save_model(new_model(config(max_position_embeddings=70), seed=7), tokenizer(), taught["teacher"])
    with pytest.raises(UserError, match=said):
        pretrained(taught, tmp_path / "out", **changes)


def test_a_teacher_must_be_there_and_speak_the_language(taught: dict[str, Path], tmp_path: Path) -> None:
    """No weights, or another tokenizer: refused before a step is taken."""
    chosen: Any = {"objective": OBJECTIVES["top_k"]}
    with pytest.raises(UserError, match="no model with weights"):
        pretrained({**taught, "teacher": taught["init"]}, tmp_path / "a", **chosen)
    save_model(new_model(config(), seed=7), tokenizer(380), taught["teacher"])
    with pytest.raises(UserError, match=r"not the tokenizer of pretrain\.teacher"):
        pretrained(taught, tmp_path / "b", **chosen)


def about(train_tokens: int, **values: Any) -> Subject:
    """The tiny model and its teacher as predictions see them, with exactly that many tokens to train on."""
    chosen = {"batch_size": 2, "context_length": 32, "precision": "fp32"} | values
    params = validate(Params, override(Params().model_dump(mode="json"), {}))
    made = params.pretrain.model_validate({**params.pretrain.model_dump(), **chosen})
    params = params.model_copy(update={"pretrain": made})
    share = 1 - params.data.validation_fraction - params.data.test_fraction
    text = round(train_tokens / share)
    return Subject(params, MACHINE, text, text, 1, 400, 1.0, 1.0, config(), 4, config(**TEACHER))


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("steps", [3, 40])
def test_it_costs_what_was_predicted(taught: dict[str, Path], tmp_path: Path, name: str, steps: int) -> None:
    """FLOPs within 1 %, in the first epoch and over several; so are trained weights, optimizer and cache."""
    # no text says the same twice, as the fixture's does: a teacher would be asked about it once
    np.random.default_rng(0).integers(0, 400, TOKENS).astype("<u2").tofile(taught["data"] / "train.bin")
    metrics = pretrained(
        places(taught, name), tmp_path / "out", objective=OBJECTIVES[name], steps=steps, eval_every=100
    )
    predicted = pretrain(about(TOKENS, steps=steps, objective=OBJECTIVES[name]))
    cache = ["teacher_cache_bytes"] if name == "top_k" else []
    for metric in ("flops", "trainable_parameters", "optimizer_bytes", *cache):
        assert predicted[metric].value == pytest.approx(metrics[metric].value, rel=0.01), metric


def test_modules_and_teacher_are_in_the_predicted_memory() -> None:
    """More depths, and a teacher, need more; the teacher's weights at the least."""
    need = {
        name: float(pretrain(about(5000, steps=3, objective=chosen))["peak_memory_bytes"].value or 0)
        for name, chosen in OBJECTIVES.items()
    }
    assert need["multi_token"] > need["next_token"]
    assert min(need["top_k"], need["whole"]) > need["next_token"] + 4 * new_size()


def new_size() -> int:
    """Parameters of the teacher."""
    return sum(parameter.numel() for parameter in new_model(config(**TEACHER), seed=0).parameters())
