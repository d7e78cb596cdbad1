"""Preference objectives and GRPO: trl's losses in the project's loop, on the base's own tokens, against the base model."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import OverBudget, UserError
from tasks.finetune import Finetune
from tasks.finetune.lesson import Given
from tasks.finetune.objective.dpo import Dpo
from tasks.finetune.objective.kto import Kto
from tasks.finetune.preference.reference import Reference
from tasks.finetune.preference.rows import PAIRS, answered, read
from tasks.models.load import load_model
from tests.models import job, plan, tokenizer
from tests.preferring import ASKED, NO, OBJECTIVES, PAIR, SHORT, SIDED, YES, finetuned, given, history, prepare


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, with rows of every kind."""
    return prepare(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("objective", SIDED)
def test_every_objective_learns(base: Path, tmp_path: Path, objective: str, method: str) -> None:
    """Better answers gain on worse ones, the held-out loss falls, and the history shows both."""
    metrics = finetuned(base, tmp_path, objective, method=method, batch_size=4)
    rows = history(tmp_path)
    assert metrics["preference_loss"].value < metrics["preference_loss_before"].value
    assert metrics["reward_margin"].value > metrics["reward_margin_before"].value
    assert rows[-1]["rewards/margins"] > rows[0]["rewards/margins"]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert metrics["optimizer_bytes"].value > 8 * metrics["trainable_parameters"].value
    assert "train_loss" not in metrics  # not a token's cross-entropy


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dpo_begins_at_the_logarithm_of_two(base: Path, tmp_path: Path, method: str) -> None:
    """Before the first step policy and reference are one model: no margin, and the loss of a coin."""
    metrics = finetuned(base, tmp_path, "dpo", method=method)
    first = history(tmp_path)[0]
    assert first["loss"] == pytest.approx(log(2), abs=1e-6)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert metrics["preference_loss_before"].value == pytest.approx(log(2), abs=1e-6)
    assert metrics["reward_accuracy"].value == 1


@pytest.mark.parametrize("method", ["prompt_tuning", "llama_adapter", "bottleneck", "qlora"])
def test_techniques_of_every_make_prefer(base: Path, tmp_path: Path, method: str) -> None:
    """Prompts, adapters that hold on to the base's forward pass, modules that peft doesn't know, quantized bases."""
    metrics = finetuned(base, tmp_path, "dpo", method=method)
    assert metrics["preference_loss"].value < metrics["preference_loss_before"].value


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_stopped_run_goes_on_bit_for_bit(base: Path, tmp_path: Path, objective: str) -> None:
    """Stopped by the budget after a step and begun again: the same weights and history as in one go."""
    fields = SHORT | {"beta": 0.1} if objective == "grpo" else None
    whole = finetuned(base, tmp_path / "whole", objective, fields)
    place = job(tmp_path / "parts")
    place.over_budget = lambda flops: "budget.flops is used up" if flops > whole["flops"].value / 2 else ""
    with pytest.raises(OverBudget, match="after step 2 of 3"):
        finetuned(base, tmp_path / "parts", objective, fields, place)
    place.over_budget = lambda _: ""
    parts = finetuned(base, tmp_path / "parts", objective, fields, place)
    outs = [tmp_path / name / "out" / "model.safetensors" for name in ("whole", "parts")]
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert parts["flops"].value == whole["flops"].value
    same = ("step", "loss", "grad_norm")
    rows = [[[row[name] for name in same] for row in history(tmp_path / name)] for name in ("whole", "parts")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("method", Finetune.techniques())
def test_the_reference_is_the_base_whatever_is_trained(base: Path, method: str) -> None:
    """Every weight that a technique may move is moved: the reference still says what the base says."""
    import torch

    ids = torch.arange(40)[None]
    technique = getattr(Finetune(), method)
    model = technique.load(base / "pretrain")
    with torch.no_grad():
        before = model(ids).logits
        reference = Reference(model)
        tuning = technique.begin(model, plan(base=base / "pretrain"))
        reference.part(lambda: technique.load(base / "pretrain"))
        for parameter in tuning.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
        assert torch.equal(reference.model(ids).logits, before)
        assert not torch.allclose(tuning.model(ids).logits[:, -40:], before, atol=1e-3)
    if method == "lora":  # one model in memory, not two
        frozen = {p.data_ptr() for p in tuning.model.parameters() if not p.requires_grad}
        assert {p.data_ptr() for p in reference.model.parameters()} <= frozen


def test_tokens_are_those_trl_would_make(base: Path, tmp_path: Path) -> None:
    """Prompt and answers as tokens: what trl's own preparation of the same row gives."""
    from tasks.finetune.preference.trainers import ASKED, EXAMPLE, SAID

    at = given(base, tmp_path)
    trainer = Dpo().trainer(load_model(base / "pretrain"), load_model(base / "pretrain"), at)
    theirs = trainer.train_dataset[0]
    ours = answered(ASKED["prompt"], SAID, at.tokenizer)
    assert (theirs["prompt_ids"], theirs["chosen_ids"]) == (ours.prompt, ours.answer)
    assert EXAMPLE["chosen"] == SAID
    assert at.tokenizer.decode(ours.answer) == "Two.<|im_end|>\n"


def test_what_trl_writes_into_configs_is_taken_back(base: Path, tmp_path: Path) -> None:
    """The model that comes out has the config of the one that went in."""
    finetuned(base, tmp_path, "dpo")
    for name in ("config.json", "generation_config.json"):
        made, was = (json.loads((root / name).read_text()) for root in (tmp_path / "out", base / "pretrain"))
        assert made == was


def test_rows_that_do_not_fit_are_counted(base: Path, tmp_path: Path) -> None:
    """Pairs of which one answer is too long or empty are left out, each counted."""
    folder = tmp_path / "data" / "instructions" / "preferences"
    folder.mkdir(parents=True)
    long, empty = ([{"role": "assistant", "content": text}] for text in ("word " * 200, " "))
    rows = [PAIR, PAIR | {"rejected": long}, PAIR | {"chosen": empty}]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    at = given(base, tmp_path)
    train, held = read(Given(**{**vars(at), "data": tmp_path / "data"}), PAIRS, "dpo")
    assert (len(train.examples), train.too_long, train.without_answer) == (1, 1, 1)
    assert not held.examples


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_rows_of_the_kind_is_refused_in_words(base: Path, tmp_path: Path, objective: str) -> None:
    """Data without such rows: what is missing, where it would be, and what makes it."""
    (tmp_path / "data" / "instructions").mkdir(parents=True)
    kind = {"dpo": "chosen and rejected", "orpo": "chosen and rejected", "kto": "label", "grpo": "answer"}[objective]
    place = tmp_path / "base"
    place.mkdir()
    (place / "data").symlink_to(tmp_path / "data")
    (place / "pretrain").symlink_to(base / "pretrain")
    with pytest.raises(UserError, match=f"found {objective}; it learns from") as error:
        finetuned(place, tmp_path, objective, SHORT if objective == "grpo" else None)
    assert kind in error.value.hint


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize(
    ("objective", "fields", "changes", "words"),
    [
        ("kto", None, {"batch_size": 1}, "set it to 2 or more"),
        ("grpo", {"max_completion_length": 64}, {}, "question and answer have 64 tokens"),
        ("dpo", {"label_smoothing": 0.1}, {}, "the loss sigmoid doesn't know it"),
        ("dpo", {"loss_type": "exo_pair"}, {}, "needs one above 0"),
        ("dpo", None, {"lora": {"target_modules": ["lm_head"]}}, "dpo can't train what finetune.lora made"),
    ],
)
def test_values_that_cannot_be_honoured_are_refused(
    base: Path, tmp_path: Path, objective: str, fields: Any, changes: Any, words: str
) -> None:
    """Nothing is silently ignored: the parameter, what was found, what to do."""
    with pytest.raises(UserError, match=words):
        finetuned(base, tmp_path, objective, fields, **changes)


def test_kto_compares_with_answers_of_the_row_before() -> None:
    """A prompt is paired with the previous row's answer, the first with the last's."""
    made = tokenizer()
    examples = [(answered(ASKED, text, made), True) for text in (YES, NO)]
    (one, foreign), (two, other) = Kto().sides(examples)
    assert foreign.prompt == one.prompt
    assert foreign.answer == two.answer
    assert other.answer == one.answer
