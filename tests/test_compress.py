"""Every compression technique of the registry, on a tiny Llama: what is on disk is what is measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tasks.compress import Compress
from tasks.compress.run import run
from tasks.core.job import Job
from tasks.core.measure import Metrics
from tasks.core.schema import validate
from tasks.evaluate import Evaluate
from tasks.evaluate.text import read_texts, score
from tasks.ledger.vocabulary import lookup
from tasks.models.load import load_model, load_tokenizer
from tests import tiny_llama

EVALUATE = Evaluate(max_bytes=4096, context_length=32, batch_size=4, sample_tokens=4)
TEXTS = [f"def add_{name}(number):\n    return number + {index}\n" for index, name in enumerate("abcdefghijkl")]
METRICS = [
    "bits_per_byte_before",
    "bits_per_byte",
    "perplexity",
    "model_bytes",
    "compression_ratio",
    "parameters",
    "nonzero_parameters",
    "label_loyalty",
    "probability_loyalty",
    "fidelity_kl_nats",
    "robustness_bits_per_byte",
    "evaluation_seconds",
    "delivery_bytes",
]


def model_folder(folder: Path, **changes: Any) -> Path:
    """A model folder as the stage before writes it."""
    tiny_llama.save(folder, **{"intermediate_size": 128, **changes})
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"not of this stage")
    (folder / "samples.json").write_text("[]")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out text and chats as the data stage writes them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "heldout.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    (folder / "instructions").mkdir()
    chat = {"messages": [{"role": "user", "content": "add?"}, {"role": "assistant", "content": "yes"}]}
    (folder / "instructions" / "test.jsonl").write_text(json.dumps(chat) + "\n")
    return folder


@pytest.fixture(scope="module")
def finetune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original, with tied embeddings."""
    return model_folder(tmp_path_factory.mktemp("model") / "finetune")


Done = tuple[Path, Metrics]


@pytest.fixture(scope="module")
def compress(data: Path, finetune: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Run the stage; the same request a second time gives the first one's result."""
    made: dict[str, Done] = {}

    def once(method: str, source: Path = finetune, attempt: int = 0, **fields: Any) -> Done:
        name = f"{method} {source} {attempt} {fields}"
        if name not in made:
            work = tmp_path_factory.mktemp("work")
            params = validate(Compress, {"method": method, method: fields})
            job = Job("compress", work)
            out = work / "out"
            made[name] = out, run(params, seed=0, evaluate=EVALUATE, data=data, finetune=source, out=out, job=job)
        return made[name]

    return once


def figures(metrics: Metrics) -> dict[str, float]:
    """The values of the metrics, none of which may be missing."""
    return {name: metric.value for name, metric in metrics.items() if metric.value is not None}


def digests(folder: Path) -> dict[str, str]:
    """Name -> sha256 of every file of a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def block_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weight matrices of the blocks' linear layers, as stored."""
    stored = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in stored.items() if "_proj.weight" in name}


@pytest.fixture(params=list(Compress.techniques()))
def method(request: pytest.FixtureRequest) -> str:
    """Every technique of the registry."""
    return str(request.param)


def test_the_report_is_complete_and_in_the_vocabulary(method: str, compress: Callable[..., Done]) -> None:
    """Every technique reports the same figures, each known to the ledger and none missing."""
    _, metrics = compress(method)
    assert sorted(metrics) == sorted(METRICS)
    assert all(lookup(name) for name in figures(metrics))
    assert len(figures(metrics)) == len(METRICS)


def test_what_is_on_disk_is_what_is_measured(method: str, data: Path, compress: Callable[..., Done]) -> None:
    """The folder reloads in plain transformers and scores exactly what the report says."""
    out, metrics = compress(method)
    assert AutoModelForCausalLM.from_pretrained(out).config.vocab_size == 432
    job = Job("compress", out)
    again = score(load_model(out), load_tokenizer(out), read_texts(data), EVALUATE, job)
    assert again.bits_per_byte == metrics["bits_per_byte"].value
    shown = [set(row) for row in json.loads((out / "samples.json").read_text())]
    assert shown == [{"prompt", "text"}, {"prompt", "text"}, {"prompt", "text", "reference"}]


def test_bytes_and_ratio_are_those_of_the_files(method: str, finetune: Path, compress: Callable[..., Done]) -> None:
    """Model bytes, ratio and delivery bytes are sums over files that exist."""
    out, metrics = compress(method)
    before, after = (sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in (finetune, out))
    assert metrics["model_bytes"].value == after
    assert metrics["compression_ratio"].value == before / after
    rest = sum(path.stat().st_size for path in out.iterdir()) - (out / "samples.json").stat().st_size
    assert metrics["delivery_bytes"].value == rest > after


def test_two_runs_are_byte_identical(method: str, compress: Callable[..., Done]) -> None:
    """Same input, same bytes; same figures, but for the clock's."""
    (first, one), (second, two) = compress(method), compress(method, attempt=1)
    assert digests(first) == digests(second)
    assert {**one, "evaluation_seconds": 0} == {**two, "evaluation_seconds": 0}


def test_parameters_count_what_they_stand_for(method: str, finetune: Path, compress: Callable[..., Done]) -> None:
    """No technique here changes the number of parameters, however they are packed."""
    _, metrics = compress(method)
    assert figures(metrics)["parameters"] == load_model(finetune).num_parameters()
    assert 0 < figures(metrics)["nonzero_parameters"] <= figures(metrics)["parameters"]


def test_none_is_the_original(finetune: Path, compress: Callable[..., Done]) -> None:
    """`none` copies byte for byte, and nothing is as loyal as the original to itself."""
    out, metrics = compress("none")
    theirs, ours = digests(finetune), digests(out)
    assert {**theirs, "samples.json": ""} == {**ours, "samples.json": ""}
    assert not (out / "adapter").exists()
    value = figures(metrics)
    assert (value["label_loyalty"], value["probability_loyalty"], value["fidelity_kl_nats"]) == (1, 1, 0)
    assert value["bits_per_byte"] == value["bits_per_byte_before"]
    assert value["compression_ratio"] == 1


@pytest.mark.parametrize(("method", "bits"), [("int8", 8), ("nf4", 4)])
@pytest.mark.parametrize("tied", [True, False])
def test_quantization_shrinks_the_blocks_and_only_them(
    method: str, bits: int, tied: bool, finetune: Path, compress: Callable[..., Done], tmp_path: Path
) -> None:
    """Linear layers take exactly their bits per weight; embeddings and output layer keep two bytes."""
    source = finetune if tied else model_folder(tmp_path / "untied", tie_word_embeddings=False)
    out, metrics = compress(method, source)
    dense, packed = block_weights(source), block_weights(out)
    for name, tensor in dense.items():
        assert packed[name].nbytes * 8 == tensor.numel() * bits
    stored = load_file(out / "model.safetensors")
    outside = [tensor for name, tensor in stored.items() if name.startswith(("model.embed", "lm_head"))]
    assert [tensor.element_size() for tensor in outside] == [2] * (1 if tied else 2)
    assert "output layer in" in metrics["model_bytes"].note
    assert 0 < figures(metrics)["fidelity_kl_nats"] < 1
    assert 0.5 < figures(metrics)["probability_loyalty"] < 1


def test_nf4_is_smaller_and_less_faithful_than_int8(compress: Callable[..., Done]) -> None:
    """Fewer bits, further from the original."""
    (_, four), (_, eight) = compress("nf4"), compress("int8")
    assert figures(four)["model_bytes"] < figures(eight)["model_bytes"]
    assert figures(four)["fidelity_kl_nats"] > figures(eight)["fidelity_kl_nats"]


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_sparsity_is_exact(sparsity: float, finetune: Path, compress: Callable[..., Done]) -> None:
    """Each linear layer of the blocks loses exactly its share, its smallest; nothing else changes, bytes included."""
    out, metrics = compress("magnitude", sparsity=sparsity)
    zeros = 0
    before, after = load_file(finetune / "model.safetensors"), load_file(out / "model.safetensors")
    for name, dense in before.items():
        if name not in block_weights(finetune):
            assert torch.equal(after[name], dense)
            continue
        gone = after[name] == 0
        zeros += int(gone.sum())
        assert int(gone.sum()) == round(sparsity * dense.numel())
        assert dense[gone].abs().max() <= dense[~gone].abs().min()
        assert torch.equal(after[name][~gone], dense[~gone])
    assert figures(metrics)["parameters"] - figures(metrics)["nonzero_parameters"] == zeros
    assert metrics["compression_ratio"].value == pytest.approx(1, abs=1e-3)
    assert "bytes do not move" in metrics["model_bytes"].note
