"""What the stage compress refuses, in the user's words and before anything is computed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tasks.compress import Compress
from tasks.compress.run import run
from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.schema import validate
from tasks.evaluate import Evaluate
from tasks.models.notices import drop_notices_of_missing_kernels
from tests import tiny_llama


@pytest.fixture
def finetune(tmp_path: Path) -> Path:
    """A model folder, to be damaged."""
    return tiny_llama.save(tmp_path / "finetune")


def compress(method: str, source: Path) -> Any:
    """Run the stage on `source`; there is no data, since none may be read before the refusal."""
    job, out = Job("compress", source.parent), source.parent / "out"
    params = validate(Compress, {"method": method})
    return run(params, seed=0, evaluate=Evaluate(), data=source.parent, finetune=source, out=out, job=job)


@pytest.mark.parametrize("sparsity", [0, 1, -0.1, "half"])
def test_sparsity_out_of_range_is_refused(sparsity: object) -> None:
    """Neither nothing nor everything can be pruned."""
    with pytest.raises(UserError, match=r"magnitude\.sparsity: found"):
        validate(Compress, {"method": "magnitude", "magnitude": {"sparsity": sparsity}})


def test_nf4_refuses_sizes_its_kernels_cannot_run(tmp_path: Path) -> None:
    """A layer that would fail in the first forward pass is named before."""
    source = tiny_llama.save(tmp_path / "odd", hidden_size=96)
    with pytest.raises(UserError, match=r"compress\.nf4: layer model\.layers\.0\.self_attn\.q_proj has 96 inputs"):
        compress("nf4", source)


def test_a_truncated_weight_file_is_named(finetune: Path) -> None:
    """A damaged file is the file's name and what to do, not a traceback."""
    path = finetune / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: damaged"):
        compress("int8", finetune)


@pytest.mark.parametrize("method", list(Compress.techniques()))
def test_a_folder_without_a_model_or_its_weights_is_named(method: str, finetune: Path, tmp_path: Path) -> None:
    """Every technique refuses what is no model in the same words."""
    with pytest.raises(UserError, match="no model there"):
        compress(method, tmp_path)
    (finetune / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        compress(method, finetune)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(value: float, finetune: Path) -> None:
    """One NaN among the weights is found before anything is computed with it."""
    weights = load_file(finetune / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, finetune / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights hold NaN or infinity, the first is model\.norm\.weight"):
        compress("none", finetune)


def test_the_notice_of_a_missing_kernel_is_dropped_and_warnings_pass(caplog: pytest.LogCaptureFixture) -> None:
    """Only that one line of bitsandbytes is kept from the user."""
    drop_notices_of_missing_kernels()
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "reason")
    log.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]
