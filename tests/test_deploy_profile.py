"""Stage deploy_profile: files, profile and errors."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, measured
from tasks.core.schema import validate
from tasks.deploy_profile import DeployProfile
from tasks.deploy_profile.engines import ENGINES, Entry, Generation, Outcome, Request, Stamp
from tasks.deploy_profile.engines.engine_llama_cpp import stamps
from tasks.deploy_profile.engines.launch import launch
from tasks.deploy_profile.figures import comparison, engine_metrics, latencies, mbu
from tasks.deploy_profile.profile import check_tokens
from tasks.deploy_profile.run import run
from tasks.evaluate import Evaluate
from tests import tiny_llama

PARAMS = {"prompt_tokens": 20, "max_new_tokens": 12, "repeats": 3}


def data_folder(where: Path) -> Path:
    (where / "instructions").mkdir(parents=True)
    texts = [json.dumps({"text": text}) for text in tiny_llama.TEXTS]
    (where / "heldout.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    chat = {"messages": [{"role": "user", "content": "add?"}, {"role": "assistant", "content": "Adds two."}]}
    (where / "instructions" / "test.jsonl").write_text(json.dumps(chat) + "\n", encoding="utf-8")
    return where


def stage(root: Path, model: Path, bandwidth: float | None = 1e10, **params: Any) -> Metrics:
    out = root / "out"
    out.mkdir(parents=True)
    job = Job("deploy_profile", root, bandwidth_bytes_per_second=bandwidth)
    section = validate(DeployProfile, {**PARAMS, **params}, "deploy_profile")
    evaluate = Evaluate(sample_tokens=4)
    return run(section, seed=0, evaluate=evaluate, data=root.parent / "data", compress=model, out=out, job=job)


def digests(out: Path) -> dict[str, str]:
    files = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_stage_writes_the_same_bytes_twice_and_measures_each_engine(tmp_path: Path) -> None:
    """Two runs write the same files; sizes are the files'; every figure is there, plausible and in the vocabulary."""
    from tasks.ledger.vocabulary import lookup

    data_folder(tmp_path / "data")
    model = tiny_llama.save(tmp_path / "model")
    metrics = stage(tmp_path / "one", model, serve="F16")
    stage(tmp_path / "two", model, serve="F16", engines=["llama_cpp"])
    first, second = digests(tmp_path / "one" / "out"), digests(tmp_path / "two" / "out")
    assert first == second
    names = ["model-F16.gguf", "model-Q4_0.gguf", "model-Q8_0.gguf", "profile.json", "safetensors/config.json"]
    assert {*names, "samples.json", "safetensors/model.safetensors", "safetensors/tokenizer.json"} <= first.keys()
    profile = json.loads((tmp_path / "one" / "out" / "profile.json").read_text())
    for file in profile["files"]:
        assert file["sha256"] == first[file["name"]]
        size = (tmp_path / "one" / "out" / file["name"]).stat().st_size
        assert metrics[f"model_bytes/{file['type']}"].value == file["bytes"] == size
    assert metrics["delivery_bytes"].value == metrics["model_bytes/F16"].value
    assert metrics["greedy_agreement/llama_cpp"].value == 1.0, "one model, one arithmetic: the same tokens"
    assert metrics["kv_cache_bytes_per_token"].value == 2 * 2 * 2 * 16 * 2
    for engine in ("transformers", "llama_cpp"):
        p50, p95, p99 = (metrics[f"inter_token_latency_p{p}_seconds/{engine}"].value or 0 for p in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99 < 5
        assert (metrics[f"decode_tokens_per_second/{engine}"].value or 0) > 0
        assert (metrics[f"peak_memory_bytes/{engine}"].value or 0) > 10e6
        assert (metrics[f"mbu/{engine}"].value or 0) > 0
    smaller, larger = (metrics[f"peak_memory_bytes/{e}"].value or 0 for e in ("llama_cpp", "transformers"))
    assert smaller < larger / 2, "a process's peak is its own, not that of the process that started it"
    for name, value in metrics.items():
        assert lookup(name)
        assert value.value is not None


def test_prompt_beyond_the_context_is_refused(tmp_path: Path) -> None:
    """Prompt and answer longer than the model's context: an error that names both parameters, before any work."""
    model = tiny_llama.save(tmp_path / "model")
    with pytest.raises(UserError, match=r"prompt_tokens \+ deploy_profile.max_new_tokens: found 100 \+ 64 = 164.* 128"):
        stage(tmp_path / "run", model, prompt_tokens=100, max_new_tokens=64)
    assert not list((tmp_path / "run" / "out").iterdir())


def test_too_little_held_out_text_is_refused(tmp_path: Path) -> None:
    """A prompt longer than all held-out text is an error, not a shorter prompt."""
    data_folder(tmp_path / "data")
    (tmp_path / "data" / "heldout.jsonl").write_text('{"text": "a b"}\n')
    with pytest.raises(UserError, match=r"prompt_tokens: found 20, but the held-out text has \d tokens"):
        stage(tmp_path / "run", tiny_llama.save(tmp_path / "model"))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"engines": ["vllm"]}, "engine 'vllm' is not one of transformers, llama_cpp"),
        ({"engines": ["llama_cpp", "llama_cpp"]}, "each may be named once"),
        ({"gguf": ["F16"], "serve": "Q8_0"}, "only what is written can be served: F16, safetensors"),
        ({"gguf": []}, "only what is written can be served: safetensors"),
        ({"gguf": [], "serve": "safetensors"}, "llama_cpp read GGUF alone; set engines: [transformers]"),
        ({"max_new_tokens": 1}, "deploy_profile.max_new_tokens"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(block: dict[str, Any], said: str) -> None:
    """Unknown or repeated engines, an unwritten file, a single token: one clear line each."""
    with pytest.raises(UserError, match=r"^deploy_profile") as error:
        validate(DeployProfile, block, "deploy_profile")
    assert said in str(error.value)


def request_for(model: Path) -> Request:
    return Request(str(model), [5, 6, 7], 4, [0], 1, 1, 1, [])


def test_damaged_file_is_the_users_error(tmp_path: Path) -> None:
    """A file llama.cpp cannot read: a sentence with its path, no traceback."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(UserError, match=r"model\.gguf: llama\.cpp cannot load it"):
        launch("llama_cpp", request_for(tmp_path / "model.gguf"))


class _Elsewhere:
    """Engines that live in a module of the test's making, in the process that `launch` starts."""

    def __init__(self, where: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.where = where
        monkeypatch.setenv("PYTHONPATH", str(where))

    def write(self, body: str) -> None:
        # The child imports sitecustomize by itself: there the registry gets the test's engine.
        (self.where / "sitecustomize.py").write_text(
            "from tasks.deploy_profile.engines import ENGINES, Entry\n"
            "ENGINES['odd'] = Entry('odd_engine', 'odd-package', 'gguf')\n"
        )
        (self.where / "odd_engine.py").write_text(body)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_engine_is_told_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    """An engine whose process is ended (memory ran out, a crash) is an error with the signal and what to do."""
    _Elsewhere(tmp_path, monkeypatch).write(f"import os\ndef load(request):\n    os.kill(os.getpid(), {by.value})\n")
    with pytest.raises(UserError, match=f"the process of odd was ended by {by.name}") as error:
        launch("odd", request_for(tmp_path))
    assert ("memory" if by == signal.SIGKILL else "take odd out") in error.value.hint


def test_missing_engine_is_told_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that isn't installed is an error that names the package."""
    _Elsewhere(tmp_path, monkeypatch).write("import a_package_that_is_not_there\n")
    with pytest.raises(UserError, match="a_package_that_is_not_there") as error:
        launch("odd", request_for(tmp_path))
    assert "install the package odd-package" in error.value.hint


def test_registry_has_a_module_per_engine() -> None:
    """Every engine of the registry has its file, and the default names them all."""
    root = Path(__file__).parents[1]
    for entry in ENGINES.values():
        assert isinstance(entry, Entry)
        assert (root / f"{entry.module.replace('.', '/')}.py").exists()
    assert list(DeployProfile().engines) == list(ENGINES)


def outcome(seconds: list[list[float]], tokens: list[int], busy: float = 0.0) -> Outcome:
    generations = [Generation([Stamp(s, i + 1) for i, s in enumerate(each)], 0.4) for each in seconds]
    return Outcome("lib 1", "cpu", 1.0, 0.5, tokens, [], generations, 1000, None, busy)


def test_figures_are_arithmetic_of_the_stamps() -> None:
    """Medians, percentiles and rates follow from the stamps; spread and a busy machine stand in the note."""
    result = outcome([[1.0, 1.1, 1.3, 1.4], [2.0, 2.2, 2.6, 2.8]], [1, 2, 3, 4], busy=0.4)
    metrics = engine_metrics("x", result, prompt_tokens=10, warmup=2)
    assert metrics["time_to_first_token_seconds/x"].value == 1.5
    assert metrics["prefill_tokens_per_second/x"].value == pytest.approx((10 + 5) / 2)
    assert metrics["decode_tokens_per_second/x"].value == pytest.approx((3 / 0.4 + 3 / 0.8) / 2)
    assert metrics["inter_token_latency_p50_seconds/x"].value == pytest.approx(0.2)
    assert metrics["cpu_seconds_per_token/x"].value == pytest.approx(0.1)
    note = metrics["decode_tokens_per_second/x"].note
    assert note.startswith("3.75..7.5; median of 2 after 2 not counted")
    assert "others used 40% of the machine" in note


def test_tokens_that_arrive_together_share_their_time() -> None:
    """A held-back UTF-8 character makes several tokens arrive at once: the first one's time comes from the server."""
    events = [(0.5, {"predicted_n": 1, "predicted_ms": 0.0}), (0.9, {"predicted_n": 3, "predicted_ms": 400.0})]
    assert latencies(Generation(stamps(events), 0.0)) == pytest.approx([0.2, 0.2])
    late = stamps([(0.9, {"predicted_n": 3, "predicted_ms": 400.0}), (0.9, {"predicted_n": 3, "predicted_ms": 400.0})])
    assert late == [Stamp(0.5, 1), Stamp(0.9, 3)]


def test_what_cannot_be_known_is_missing_with_its_reason() -> None:
    """Without a reference engine or a measured bandwidth there is a reason and no figure."""
    one = {"llama_cpp": outcome([[1.0, 2.0]], [1, 2])}
    for value in comparison("llama_cpp", one, {}, "files").values():
        assert value.value is None
        assert "transformers is not among" in value.note
    assert mbu(measured(10.0), 1000, None).value is None
    assert mbu(measured(10.0), 1000, 1e5).value == pytest.approx(0.1)


def test_engine_that_tokenizes_otherwise_is_refused() -> None:
    """One id that differs from the tokenizer's own: an error with the text and both readings."""
    tokenizer = tiny_llama.tokenizer()
    ids = tokenizer("fox dog")["input_ids"]
    right, wrong = (dataclasses.replace(outcome([[1.0]], [1]), tokenized=[found]) for found in (ids, [7, *ids[1:]]))
    check_tokens("x", right, tokenizer, Path("model.gguf"), ["fox dog"])
    with pytest.raises(UserError, match=r"model\.gguf: x tokenizes 'fox dog' as \[7, "):
        check_tokens("x", wrong, tokenizer, Path("model.gguf"), ["fox dog"])


def test_agreement_says_where_the_engines_part() -> None:
    """The share of equal tokens, and the place of the first that differs."""
    both = {"transformers": outcome([[1.0, 2.0]], [1, 2, 3, 4]), "llama_cpp": outcome([[1.0, 1.5]], [1, 2, 9, 4])}
    rates = {f"decode_tokens_per_second/{name}": measured(rate) for name, rate in zip(both, (1.0, 2.0), strict=True)}
    compared = comparison("llama_cpp", both, rates, "files")
    assert compared["speedup/llama_cpp"].value == 2.0
    assert compared["greedy_agreement/llama_cpp"].value == 0.75
    assert "first difference at token 3" in compared["greedy_agreement/llama_cpp"].note
