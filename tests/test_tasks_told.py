"""What a figure of quality says of itself: what it is no measure of, and why it is what it is."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.evaluate import Evaluate, harness
from tasks.evaluate.answers import pass_at_1, told
from tasks.evaluate.judge import judge
from tasks.evaluate.sandbox import Verdict, passes
from tasks.models.load import load_model, load_tokenizer, new_model, save_model
from tasks.params import Params
from tests.models import TEXTS, config, job, tokenizer

PARAMS = Evaluate(context_length=64, sample_tokens=4, batch_size=4)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What data and pretrain leave, tiny, without held-out text."""
    save_model(new_model(config(max_position_embeddings=512), seed=0), tokenizer(), tmp_path / "pretrain")
    folder = tmp_path / "data" / "instructions"
    folder.mkdir(parents=True)
    for name in ("train", "validation", "test"):
        (folder / f"{name}.jsonl").write_text("")
    return tmp_path


def test_held_out_records_are_no_text_that_is_forgotten(place: Path) -> None:
    """Where finetuning learns records like the held-out ones the figure's note says so, and what to set; else it doesn't."""
    base, notes = place / "pretrain", []
    for rows in ([{"text": TEXTS[0]}], [{"text": "a" * 30}, {"text": "b" * 10, "record": True}]):
        (place / "data" / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        notes.append(judge(base, place / "data", PARAMS, job(place), before=base)["forgetting_bits_per_byte"].note)
    assert "records" not in notes[0]
    assert "25% of the held-out text are records" in notes[1]
    assert "data.instructions" in notes[1]


def test_every_way_to_end_is_counted() -> None:
    """The commonest first, in words; what isn't an error's name isn't repeated; the guards that kept watch are named."""
    ends = [Verdict(True, "", "kernel"), *[Verdict(False, "AssertionError", "kernel")] * 2, Verdict(False, "killed")]
    assert told(ends) == "2 wrong, 1 passed, 1 killed (memory or time); confined by the kernel"
    assert told([Verdict(False, "<b>I passed</b>", "interpreter")]) == "1 no verdict; confined by the interpreter"
    many = [Verdict(False, f"Error{i}", "kernel") for i in range(10)]
    assert "4 other" in told(many)
    assert told([]) == ""


def test_answers_tell_how_they_ended() -> None:
    """Of each one verdict, by the name of what went wrong."""
    verdicts: list[Verdict] = []
    for answer in ("def f(): return 1", "def f(): return 2", "Here it is!", "while True: pass", "f = 1 / 0"):
        pass_at_1(answer, "assert f() == 1", verdicts)
    guard = passes("", "").guard
    assert [verdict.passed for verdict in verdicts] == [True, False, False, False, False]
    said = told(verdicts)
    assert all(f"1 {end}" in said for end in ("passed", "wrong", "SyntaxError", "ZeroDivisionError"))
    assert said.endswith(f"confined by the {guard}")


@pytest.mark.parametrize(("tokens", "cut"), [(8, True), (128, False)])
def test_the_figure_of_programs_tells_why(
    place: Path, tokens: int, cut: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """How the programs ended and what confined them stand in its note, and that they were cut, if they were; it is said too."""
    model, made = load_model(place / "pretrain"), load_tokenizer(place / "pretrain")
    params = PARAMS.model_copy(update={"tasks": ("code",), "task_examples": 2, "task_tokens": tokens})
    (found,) = harness.run(model, made, place / "data", params, job(place))
    assert found.value is not None
    assert "; confined by the " in found.note
    assert ("cut programs short" in found.note) == ("evaluate.task_tokens: " in capsys.readouterr().err) == cut


@pytest.mark.parametrize("stage", ["pretrain", "finetune", "compress"])
def test_a_task_that_can_not_be_had_stops_a_stage_before_it_trains(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for first, when nothing has been read or computed; local tasks are no reason to load lm-eval."""
    nowhere = tmp_path / "nowhere"
    inputs: dict[str, dict[str, Any]] = {
        "pretrain": {"data": nowhere, "design": nowhere, "init": nowhere},
        "finetune": {"data": nowhere, "pretrain": nowhere},
        "compress": {"data": nowhere, "finetune": nowhere},
    }

    class Empty:
        def load(self, names: list[str]) -> None:
            raise KeyError(names[0])

    monkeypatch.setattr(harness, "_catalogue", Empty)
    with pytest.raises(UserError, match=r"evaluate\.tasks: 'elsewhere' is no task"):
        importlib.import_module(f"tasks.{stage}.run").run(
            getattr(Params(), stage),
            seed=0,
            evaluate=PARAMS.model_copy(update={"tasks": ("chats", "elsewhere")}),
            out=nowhere,
            job=job(tmp_path),
            **inputs[stage],
        )
    monkeypatch.setattr(harness, "_catalogue", None)
    harness.prepare(PARAMS.model_copy(update={"tasks": ("chats", "verifiable", "code")}))
