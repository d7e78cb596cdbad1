"""Stage pretrain: where it starts from, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import UserError
from tasks.evaluate import Evaluate
from tasks.models.load import new_model, save_model
from tasks.pretrain import Pretrain
from tasks.pretrain.run import run
from tests import pretrain_inputs
from tests.models import config, job, tokenizer


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """What data and design leave, tiny, and no model to start from."""
    return pretrain_inputs.make(tmp_path)


def pretrained(inputs: dict[str, Path], out: Path, evaluate: int = 64, **changes: Any) -> Any:
    """Run the stage; returns its metrics."""
    values = {"steps": 6, "batch_size": 2, "context_length": 32, "precision": "fp32", "eval_every": 3} | changes
    out.mkdir()
    params = Evaluate(context_length=evaluate, sample_tokens=4)
    return run(Pretrain(**values), seed=0, evaluate=params, out=out, job=job(out.parent), **inputs)


def test_it_learns_and_reports(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Bits per byte fall below those of the untrained model; every token trained on is counted."""
    untrained = pretrained(inputs, tmp_path / "a", steps=0)
    trained = pretrained(inputs, tmp_path / "b", learning_rate=1e-2)
    assert trained["bits_per_byte"].value < untrained["bits_per_byte"].value
    assert trained["tokens"].value == 6 * 2 * 32


def test_zero_steps_pass_an_existing_model_through(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The weights of `pretrain.init` come out byte for byte."""
    save_model(new_model(config(), seed=5), tokenizer(), inputs["init"])
    pretrained(inputs, tmp_path / "out", steps=0)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (inputs["init"] / "model.safetensors").read_bytes()


def test_a_model_without_safetensors_is_not_replaced_by_noise(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A folder with a config and pickled weights is refused, not silently started from scratch."""
    (inputs["init"] / "config.json").write_text(json.dumps(config()))
    (inputs["init"] / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="without weights"):
        pretrained(inputs, tmp_path / "out", steps=0)


def test_foreign_ids_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Existing weights and another model's tokenizer don't go together."""
    save_model(new_model(config(), seed=5), tokenizer(380), inputs["init"])
    with pytest.raises(UserError, match=r"data\.tokenizer"):
        pretrained(inputs, tmp_path / "out")


@pytest.mark.parametrize(("changes", "evaluate"), [({"context_length": 500}, 64), ({}, 500)])
def test_contexts_beyond_the_positions_are_refused(
    inputs: dict[str, Path], tmp_path: Path, changes: dict[str, int], evaluate: int
) -> None:
    """Training or scoring beyond the model's positions is refused by name."""
    with pytest.raises(UserError, match="context_length: found 500; the model has 128 positions"):
        pretrained(inputs, tmp_path / "out", evaluate, **changes)


def test_too_little_text_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    """A split shorter than one sequence: its length and the context are named."""
    np.array([1, 2, 3], dtype="<u2").tofile(inputs["data"] / "validation.bin")
    with pytest.raises(UserError, match="only 3 tokens"):
        pretrained(inputs, tmp_path / "out")
