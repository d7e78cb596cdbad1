"""GGUF files: llama.cpp computes from them what transformers computes from the folder they were made of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tasks.core.errors import UserError
from tasks.deploy_profile.engines import Outcome, Request
from tasks.deploy_profile.engines.launch import launch
from tasks.deploy_profile.gguf_export import Exporter, interleave
from tasks.deploy_profile.profile import PROBES, bytes_per_token
from tasks.models.load import load_model, load_tokenizer
from tests import tiny_llama

TRICKY = [
    *PROBES,
    "<|im_start|>user\n<|im_end|> <|endoftext|><|endoftext|>  <|im_start",
    "\u00a0\u3000 wide\tblanks \u200b\u2028 e\u0301 é ÅÄ ﬀ 𝔘𝔫𝔦 𓀀 \U0001f468\u200d\U0001f469",
    "a" * 300 + " " * 70 + "\n" * 9,
    "0 00 000 1,000,000.00 ²³ ١٢٣ 九",
]


def llama_cpp(model: Path, prompt: list[int], count: int = 16, texts: list[str] | None = None) -> Outcome:
    return launch("llama_cpp", Request(str(model), prompt, count, [0, 1, 2], 1, 1, 2, texts or []))


def greedy(folder: Path, prompt: list[int], count: int = 16) -> list[int]:
    return launch("transformers", Request(str(folder), prompt, count, [0, 1, 2], 1, 1, 2, [])).tokens


def exported(folder: Path, kind: str) -> Path:
    return Exporter(folder).write(folder.parent, kind).path


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def split_digits() -> Any:
    from tokenizers import pre_tokenizers as p

    return p.Sequence([p.Digits(individual_digits=True), p.ByteLevel(add_prefix_space=False)])


SHAPES: dict[str, dict[str, Any]] = {
    "tied": {},
    "untied": {"tie_word_embeddings": False},
    "wide heads": {"head_dim": 32, "num_key_value_heads": 1},
    "biases": {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
}


@pytest.fixture(scope="module", params=SHAPES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("gguf") / "model"
    model = tiny_llama.model(**SHAPES[request.param])
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.2)
    from tasks.models.load import save_model

    save_model(model, tiny_llama.tokenizer(), where)
    return where


@pytest.mark.slow
def test_llama_cpp_computes_the_same_logits_and_tokens(folder: Path) -> None:
    """The F16 file gives transformers' log-probabilities and its greedy tokens: order of rows, rope, names are right."""
    import torch

    path, prompt = exported(folder, "F16"), list(range(40, 70))
    ask = {"prompt": prompt, "n_predict": 1, "n_probs": 8, "temperature": 0.0, "cache_prompt": False}
    code = (
        "import json, sys, urllib.request, xllamacpp as x; p = x.CommonParams(); p.model.path = sys.argv[1]\n"
        "p.n_ctx = 64; p.fit_params = False; p.verbosity = 0; s = x.Server(p)\n"
        "r = urllib.request.Request(s.listening_address + '/completion', sys.argv[2].encode())\n"
        "print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(r).read().decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, json.dumps(ask)], capture_output=True, text=True, check=True
    )
    top = json.loads(done.stdout.splitlines()[-1])["completion_probabilities"][0]["top_logprobs"]
    with torch.inference_mode():
        expected = load_model(folder)(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    assert [entry["id"] for entry in top][:3] == expected.topk(3).indices.tolist()
    for entry in top:
        assert entry["logprob"] == pytest.approx(float(expected[entry["id"]]), abs=0.02)
    assert llama_cpp(path, prompt).tokens == greedy(folder, prompt)


@pytest.mark.parametrize("pre", [None, split_digits], ids=["gpt-2", "smollm"])
def test_llama_cpp_tokenizes_the_same(tmp_path: Path, pre: Any) -> None:
    """Every text, special tokens and odd blanks included, has the same ids under llama.cpp and under transformers."""
    folder = tiny_llama.save(tmp_path / "model", pre() if pre else None)
    tokenizer = load_tokenizer(folder)
    found = llama_cpp(exported(folder, "F16"), [5, 6, 7], 2, TRICKY).tokenized
    for text, ids in zip(TRICKY, found, strict=True):
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"], text


@pytest.mark.parametrize(("kind", "steps"), [("Q8_0", 254.0), ("Q4_0", 8.0)])
def test_quantized_weights_stay_within_a_step(tmp_path: Path, kind: str, steps: float) -> None:
    """A dequantized weight is off by no more than a step of its block of 32 (and float16's rounding of the scale)."""
    folder = tiny_llama.save(tmp_path / "model")
    exact, quantized = tensors(exported(folder, "F16")), tensors(exported(folder, kind))
    assert exact.keys() == quantized.keys()
    for name, tensor in quantized.items():
        wanted = gguf.dequantize(exact[name].data, exact[name].tensor_type).astype(np.float32)
        error = np.abs(gguf.dequantize(tensor.data, tensor.tensor_type) - wanted)
        if wanted.ndim == 1:
            assert tensor.tensor_type.name == "F32"
            assert not error.any()
            continue
        largest = np.abs(wanted).reshape(-1, 32).max(axis=1, keepdims=True)
        assert (error.reshape(-1, 32) <= largest * (1 / steps + 2e-3)).all(), name


def test_file_says_what_it_is(tmp_path: Path) -> None:
    """Shape, tokenizer, special ids and chat template stand in the file; tied embeddings are written once."""
    path = exported(tiny_llama.save(tmp_path / "model"), "Q4_0")
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert path.name == "model-Q4_0.gguf"
    assert "output.weight" not in tensors(path)
    assert tensors(path)["token_embd.weight"].tensor_type.name == "Q8_0"
    assert fields["general.architecture"] == "llama"
    assert fields["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q4_0
    assert fields["llama.attention.head_count_kv"] == 2
    assert fields["llama.rope.freq_base"] == 5000.0
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    assert (fields["tokenizer.ggml.bos_token_id"], fields["tokenizer.ggml.eos_token_id"]) == (0, 2)
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.token_type"][:4] == [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL]
    assert fields["tokenizer.ggml.token_type"][-1] == gguf.TokenType.UNUSED
    assert fields["tokenizer.chat_template"] == tiny_llama.TEMPLATE


def test_size_is_counted_and_bytes_repeat(tmp_path: Path) -> None:
    """The reported size is the file's, two exports have the same bytes, and a token reads all but an untied table."""
    folder = tiny_llama.save(tmp_path / "model", tie_word_embeddings=False)
    for kind in ("F16", "Q8_0", "Q4_0"):
        contents = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
            file = Exporter(folder).write(tmp_path / name, kind)
            contents.append(file.path.read_bytes())
            assert file.bytes == len(contents[-1])
        assert contents[0] == contents[1]
        every = tensors(file.path)
        weights = sum(int(tensor.n_bytes) for tensor in every.values())
        assert bytes_per_token(file.path) == weights - every["token_embd.weight"].n_bytes
    assert bytes_per_token(folder) == 4 * sum(p.numel() for p in tiny_llama.model().parameters())


def test_rows_that_do_not_fit_a_block_stay_f16_and_say_so(tmp_path: Path) -> None:
    """A row length that 32 doesn't divide falls back to F16 with a note, and the file still runs as transformers does."""
    folder = tiny_llama.save(tmp_path / "model", hidden_size=48, head_dim=16)
    file = Exporter(folder).write(tmp_path, "Q8_0")
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors(file.path).items()}
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.ffn_down.weight"] == kinds["blk.0.attn_output.weight"] == "Q8_0"
    assert Exporter(folder).write(tmp_path, "F16").note == ""
    assert "rows of 48 don't divide into blocks of 32" in file.note
    assert len(llama_cpp(file.path, [5, 6, 7], 4).tokens) == 4


@pytest.mark.slow
@pytest.mark.parametrize("method", ["int8", "nf4"])
def test_bitsandbytes_folders_are_dequantized(tmp_path: Path, method: str) -> None:
    """The F16 file of an int8 or nf4 folder holds that folder's rounded weights, and a note says how it came to them."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    plain = tiny_llama.save(tmp_path / "plain", intermediate_size=128)
    options = {"load_in_8bit": True} if method == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    quantized = AutoModelForCausalLM.from_pretrained(plain, quantization_config=BitsAndBytesConfig(**options))
    quantized.save_pretrained(tmp_path / "model")
    tiny_llama.tokenizer().save_pretrained(tmp_path / "model")
    file = Exporter(tmp_path / "model").write(tmp_path, "F16")
    assert file.note == "bitsandbytes weights dequantized by transformers first"
    name = "model.layers.1.mlp.down_proj.weight"
    original = tiny_llama.model(intermediate_size=128).state_dict()[name].numpy()
    written = tensors(file.path)["blk.1.ffn_down.weight"].data.astype(np.float32)
    error = np.abs(written - original).max() / np.abs(original).max()
    assert 1e-4 < error < (1 / 127 if method == "int8" else 1 / 6)
    inputs = torch.arange(40, 60)[None]
    with torch.inference_mode():
        ours = load_model(tmp_path / "model")(inputs).logits.float()
    path, prompt = file.path, inputs[0].tolist()
    assert llama_cpp(path, prompt, 2).tokens[0] == int(ours[0, -1, 3:].argmax()) + 3


def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    """Unknown architectures, rope scalings, pre-tokenizers and damaged weights are errors that name what is supported."""
    from tokenizers import pre_tokenizers

    folder = tiny_llama.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())

    def refused(changes: dict[str, Any]) -> str:
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError) as error:
            Exporter(folder).write(tmp_path, "F16")
        return str(error.value)

    assert "OPTForCausalLM cannot be written as GGUF\n  supported: LlamaForCausalLM" in refused(
        {"architectures": ["OPTForCausalLM"]}
    )
    assert "rope_type linear" in refused(
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}}
    )
    assert "vocab_size is 100" in refused({"vocab_size": 100})
    (folder / "config.json").write_text(json.dumps(config))
    tiny_llama.tokenizer(pre_tokenizers.Whitespace()).save_pretrained(folder)
    with pytest.raises(UserError, match=r"unknown pre-tokenizer .*Whitespace") as error:
        Exporter(folder).write(tmp_path, "F16")
    assert "gpt-2, smollm" in error.value.hint
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="model"):
        Exporter(folder)


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    """An infinity or a value that float16 cannot hold never reaches a file unnoticed."""
    from tasks.models.load import save_model

    for value, word in ((float("inf"), "inf"), (float("nan"), "nan"), (1e5, "100000")):
        model = tiny_llama.model()
        model.model.layers[1].mlp.up_proj.weight.data[3, 4] = value
        save_model(model, tiny_llama.tokenizer(), tmp_path / "model")
        with pytest.raises(UserError, match=f"up_proj.weight holds {word}"):
            Exporter(tmp_path / "model").write(tmp_path, "F16")


def test_interleaving_pairs_each_dimension_with_its_partner() -> None:
    """Dimension i of a head and dimension i + d/2 end up side by side."""
    rows = np.arange(16, dtype=np.float32)[:, None]
    assert interleave(rows, 2).ravel().tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
