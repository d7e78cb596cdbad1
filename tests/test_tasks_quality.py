"""Tasks through lm-eval without a network, what a stage gained and forgot, and what that is predicted to cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.evaluate import BESIDE, LOCAL, Evaluate, harness
from tasks.evaluate.answers import METRICS, chrf, exact_match, rouge_l
from tasks.evaluate.judge import judge, judged
from tasks.evaluate.questions import closing, ending, questions, spread, written
from tasks.finetune import Finetune
from tasks.finetune.run import run
from tasks.ledger.predict.quality import Kept, tasks
from tasks.ledger.predict.subject import subject
from tasks.ledger.predict.text import Text
from tasks.ledger.vocabulary import lookup
from tasks.models.load import load_model, load_tokenizer, new_model, save_model
from tasks.params import Params
from tests.models import MACHINE, TEXTS, adapted, config, job, tokenizer
from tests.test_finetune_left_padding import APART, stirred

PARAMS = Evaluate(
    context_length=64,
    sample_tokens=4,
    batch_size=4,
    tasks=("chats", "verifiable", "code"),
    task_examples=6,
    task_tokens=8,
)


def chat(number: int) -> list[dict[str, str]]:
    """A question and its answer, the same for every number."""
    return [{"role": "user", "content": f"for {number}?"}, {"role": "assistant", "content": "print name"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny."""
    root = tmp_path_factory.mktemp("place")
    save_model(new_model(config(max_position_embeddings=256), seed=0), tokenizer(), root / "pretrain")
    folder = root / "data" / "instructions"
    (folder / "verifiable").mkdir(parents=True)
    for name in ("train", "validation", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"messages": chat(n)}) + "\n" for n in range(12)))
    row = {"prompt": chat(1)[:1], "answer": "print name"}
    (folder / "verifiable" / "test.jsonl").write_text(json.dumps(row) + "\n")
    (root / "data" / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    return root


@pytest.fixture(scope="module")
def tuned(place: Path) -> tuple[Path, dict[str, Any]]:
    """A model that has learned the one answer there is, and what its stage reported."""
    judge(place / "pretrain", place / "data", PARAMS, job(place))
    out = place / "tuned" / "out"
    out.mkdir(parents=True)
    chosen = Finetune(
        method="full", steps=40, batch_size=4, context_length=128, precision="fp32", learning_rate=1e-2, schedule={"warmup_steps": 2}
    )  # fmt: skip
    places = {"data": place / "data", "pretrain": place / "pretrain"}
    return out, run(chosen, seed=0, evaluate=PARAMS, out=out, job=job(place / "tuned"), **places)


def test_tasks_see_what_a_model_has_learned(tuned: tuple[Path, dict[str, Any]]) -> None:
    """Every metric of every local task is reported before and after; what was learned scores 1, and didn't before."""
    _, metrics = tuned
    for task, measures in METRICS.items():
        for metric in measures:
            before, after = (metrics[f"task_score{when}/{task}/{metric}"] for when in ("_before", ""))
            assert 0 <= before.value <= after.value <= 1
            assert "lm-eval" in after.note
    assert metrics["task_score/chats/exact_match"].value == metrics["task_score/verifiable/exact_match"].value == 1
    assert metrics["task_score_before/chats/exact_match"].value == 0
    assert "6 of 12" in metrics["task_score/chats/rouge_l"].note
    assert "standard error" in metrics["task_score/chats/rouge_l"].note
    assert all(lookup(name) for name in metrics)


def test_forgetting_is_the_change_of_bits_per_byte(place: Path, tuned: tuple[Path, dict[str, Any]]) -> None:
    """After less before, before as measured of the base by the same ruler; a model forgets nothing of itself."""
    _, metrics = tuned
    before = judged(place / "pretrain", place / "data", PARAMS, job(place)).bits_per_byte
    assert metrics["bits_per_byte_before"].value == before
    assert metrics["forgetting_bits_per_byte"].value == metrics["bits_per_byte"].value - before != 0
    itself = judge(place / "pretrain", place / "data", PARAMS, job(place), before=place / "pretrain")
    assert itself["forgetting_bits_per_byte"].value == 0


def test_a_score_is_read_by_its_ruler_alone(
    place: Path, tuned: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same ruler the score beside a model is read; by another, or without one, it is measured: the same figures."""
    folder, data = tuned[0], place / "data"
    kept = judged(folder, data, PARAMS, job(place))
    other = PARAMS.model_copy(update={"context_length": 4, "tasks": ()})
    assert judged(folder, data, other, job(place)).bits_per_byte != kept.bits_per_byte
    score = (folder / "score.json").read_bytes()
    (folder / "score.json").unlink()
    assert judged(folder, data, PARAMS, job(place)) == kept
    (folder / "score.json").write_bytes(score)
    monkeypatch.setattr("tasks.evaluate.judge.load_model", None)
    assert judged(folder, data, PARAMS, job(place)) == kept


def test_bits_per_byte_are_what_they_are_without_tasks(place: Path) -> None:
    """Tasks change no other figure."""
    figures = [
        judge(place / "pretrain", place / "data", p, job(place))
        for p in (PARAMS, PARAMS.model_copy(update={"tasks": ()}))
    ]
    assert figures[0]["bits_per_byte"] == figures[1]["bits_per_byte"]
    assert not any(name.startswith("task_") for name in figures[1])
    judge(place / "pretrain", place / "data", PARAMS, job(place))


@pytest.mark.parametrize("method", ["", *APART])
def test_answers_do_not_hang_on_the_batch(place: Path, tuned: tuple[Path, dict[str, Any]], method: str) -> None:
    """Questions of different lengths are answered the same alone and together, also by a model under an adapter."""
    folder, data = tuned[0], place / "data"
    model, made = load_model(folder), load_tokenizer(folder)
    if method:
        model = stirred(adapted(getattr(Finetune(), method), model)).eval()
    alone, together = (
        harness.run(model, made, data, PARAMS.model_copy(update={"batch_size": size}), job(place)) for size in (1, 4)
    )
    assert [(r.name, r.value) for r in alone] == [(r.name, r.value) for r in together]


def test_an_unmerged_adapter_can_be_asked(place: Path) -> None:
    """A `PeftModel` answers like the model it is."""
    from peft import LoraConfig, get_peft_model

    model, made = load_model(place / "pretrain"), load_tokenizer(place / "pretrain")
    plain = harness.run(model, made, place / "data", PARAMS, job(place))
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear")).eval()
    assert harness.run(adapted, made, place / "data", PARAMS, job(place)) == plain


def test_what_cannot_be_asked_says_why(place: Path, tmp_path: Path) -> None:
    """No chat template, no such rows, no room: null and the reason, never 0."""
    model, made = load_model(place / "pretrain"), load_tokenizer(place / "pretrain")
    made.chat_template = None
    found = harness.run(model, made, place / "data", PARAMS, job(place))
    assert {r.value for r in found} == {None}
    assert all("chat template" in r.note for r in found)
    made = load_tokenizer(place / "pretrain")
    (tmp_path / "instructions").mkdir()
    (tmp_path / "instructions" / "test.jsonl").write_text(json.dumps({"messages": chat(1)[:1]}) + "\n")
    found = harness.run(model, made, tmp_path, PARAMS.model_copy(update={"tasks": ("chats", "verifiable")}), job(place))
    assert {(r.value, r.note.partition(" ")[0]) for r in found} == {(None, "0")}


@pytest.mark.slow
def test_tasks_of_the_hub_need_a_network(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without one, and for a name nobody knows: one sentence with the tasks that need none."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    model, made = load_model(place / "pretrain"), load_tokenizer(place / "pretrain")
    for name, why in (
        ("no_such_task", "not a registered task"),
        ("arc_easy", "allenai/ai2_arc"),
        ("humaneval", "code"),
    ):
        with pytest.raises(UserError, match=f"evaluate.tasks: '{name}'.*{why}") as caught:
            harness.run(model, made, place / "data", PARAMS.model_copy(update={"tasks": (name,)}), job(place))
        assert "code" in (caught.value.hint or "")


def test_questions_are_asked_as_in_training(place: Path) -> None:
    """A prompt ends where the answer begins, with the template's words; the answer ends with its turn."""
    made = tokenizer()
    asked = written(questions("chats", place / "data"), made)
    assert len(asked) == 12
    assert asked[3].prompt == "<|im_start|>user\nfor 3?<|im_end|>\n<|im_start|>assistant\n"
    assert asked[3].question.answer == "print name"
    assert closing(made) == "<|im_end|>"
    assert made.convert_ids_to_tokens(ending(made)) == ["<|endoftext|>", "<|im_end|>"]
    assert [one.prompt for one in spread(asked, 3)] == [asked[0].prompt, asked[4].prompt, asked[8].prompt]
    assert {task: bool(questions(task, place / "data")) for task in LOCAL} == dict.fromkeys(LOCAL, True)


@pytest.mark.parametrize("measure", [exact_match, rouge_l, chrf])
def test_metrics_go_from_nothing_in_common_to_the_same(measure: Any) -> None:
    """0 for nothing in common, 1 for the same text; white space around it doesn't matter."""
    assert measure(" Return the sum.\n", "Return the sum.") == pytest.approx(1)
    assert measure("xyz", "Return") == 0
    assert measure("", "Return") == 0
    if measure is not exact_match:
        assert 0 < measure("Return the product.", "Return the sum.") < 1


def test_compression_is_judged_before_and_after(
    place: Path, tuned: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Without compression a model scores what it scored; how it was judged is no part of what is delivered."""
    from tasks.compress import Compress
    from tasks.compress import run as compress

    folder, metrics = tuned
    out = tmp_path / "out"
    found = compress.run(
        Compress(method="none"),
        seed=0,
        evaluate=PARAMS,
        data=place / "data",
        finetune=folder,
        out=out,
        job=job(tmp_path),
    )
    scores = [name for name in metrics if name.startswith("task_score/")]
    assert len(scores) == 5
    for name in scores:
        assert found[name] == found[name.replace("/", "_before/", 1)] == metrics[name]
    assert all((folder / name).exists() for name in BESIDE)
    assert not (out / "score.json").exists()


def test_more_questions_are_predicted_to_take_longer() -> None:
    """Nothing without tasks; more with more examples, longer answers, another task."""
    source = Text(4_000_000, 400)

    def seconds(**changes: Any) -> float:
        chosen = Params(evaluate=Evaluate(**changes))
        about = subject(chosen, MACHINE, source)
        return tasks(about, Kept(4 * about.anatomy.parameters, "float32")).wall

    assert seconds() == 0
    few = seconds(tasks=("chats",))
    assert 0 < few < seconds(tasks=("chats",), task_tokens=64) < seconds(tasks=("chats", "code"), task_tokens=64)
    assert few < seconds(tasks=("chats",), task_examples=160)
