"""Rewards, GRPO, and what every preference objective costs."""

from __future__ import annotations

import json
from math import log
from pathlib import Path
from typing import Any

import pytest

from tasks.finetune import Finetune
from tasks.finetune.objective.grpo import Grpo
from tasks.finetune.preference.rewards import REWARDS, told
from tasks.ledger.predict import plan as predicted
from tasks.models.load import load_model
from tests.conftest import ROOT
from tests.models import MACHINE, TEXTS, config
from tests.preferring import ASKED, OBJECTIVES, PAIR, SHORT, YES, finetuned, given, history, prepare
from tests.test_predict import params, value


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, with rows of every kind."""
    return prepare(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("name", "said", "right", "worth"),
    [
        ("exact_match", " yes\n", "yes", 1),
        ("exact_match", "yes.", "yes", 0),
        ("last_line_match", "I think:\nyes", "yes", 1),
        ("last_line_match", "", "yes", 0),
        ("numeric_match", "2 + 2 is 4.0", "4", 1),
        ("numeric_match", "1,204 of them", "1204", 1),
        ("numeric_match", "none", "4", 0),
        ("similarity", "ye", "yes", 0.8),
    ],
)
def test_rewards(name: str, said: str, right: str, worth: float) -> None:
    """What answers are worth, alone and as trl asks for it."""
    assert REWARDS[name](said, right) == pytest.approx(worth)
    assert told(REWARDS[name])([[{"role": "assistant", "content": said}]], [right], prompts=[]) == [
        pytest.approx(worth)
    ]


def questions(base: Path, folder: Path, batch_size: int = 2) -> Any:
    """A lesson of questions, begun on the tiny model."""
    model = load_model(base / "pretrain").train()
    lesson = Grpo(**SHORT).lesson(given(base, folder, batch_size=batch_size))
    lesson.meet(model)
    lesson.begin(model)
    return lesson


def test_advantages_are_rewards_within_their_group(base: Path, tmp_path: Path) -> None:
    """A group's advantages are its rewards less their mean by their deviation; only answers are labelled."""
    import torch

    lesson = questions(base, tmp_path, batch_size=1)
    batch = lesson.batch(0)
    assert batch.inputs.shape[0] == 4
    texts = [lesson.given.tokenizer.decode(row[row != -100], skip_special_tokens=True) for row in batch.labels]
    rewards = torch.tensor([REWARDS["similarity"](text, "yes") for text in texts])
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert rewards.std() > 0
    assert torch.allclose(batch.extras["advantages"], expected, atol=1e-4)
    asked = int(batch.extras["asked"][0])
    assert (batch.labels[:, :asked] == -100).all()
    assert ((batch.labels != -100).sum(1) <= 8).all()


def test_a_batch_is_the_same_for_the_same_number(base: Path, tmp_path: Path) -> None:
    """Asked for in any order, by any attempt, the same model samples the same answers for a step."""
    import torch

    first, second = questions(base, tmp_path / "a"), questions(base, tmp_path / "b")
    torch.manual_seed(5)
    one = first.batch(3)
    assert second.batch(0).inputs.shape[0] == 8
    torch.manual_seed(6)
    assert torch.equal(one.inputs, second.batch(3).inputs)


def test_grpo_raises_the_reward(base: Path, tmp_path: Path) -> None:
    """A dozen steps on one question: answers are worth twice what they were, to a held-out question too."""
    changes = {"method": "full", "steps": 12, "learning_rate": 3e-2, "schedule": {"warmup_steps": 0}}
    metrics = finetuned(base, tmp_path, "grpo", SHORT | {"num_generations": 16}, **changes)
    assert metrics["mean_reward"].value > 1.6 * metrics["mean_reward_before"].value
    assert metrics["completion_tokens"].value <= 8
    rows = history(tmp_path)
    assert rows[-1]["reward"] > 1.6 * rows[0]["reward"]


def test_grpo_measures_the_distance_from_the_base(base: Path, tmp_path: Path) -> None:
    """With beta the divergence from the base is 0 before the first step, and then it isn't."""
    finetuned(base, tmp_path, "grpo", SHORT | {"beta": 0.1}, learning_rate=2e-2)
    rows = history(tmp_path)
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["kl"] > 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_flops_are_those_predicted(base: Path, tmp_path: Path, objective: str) -> None:
    """What is counted from operators is what the objective's arithmetic says of as many tokens of rows as long."""
    fields = SHORT if objective == "grpo" else None
    metrics = finetuned(base, tmp_path, objective, fields, method="full", batch_size=2, steps=2)
    chosen = Finetune(method="full", objective={"method": objective, **({objective: fields} if fields else {})})
    rows = 2 * 2 * chosen.objective.technique.sequences
    length = metrics["tokens"].value // rows
    per_token = chosen.objective.technique.flops_per_token(chosen.technique, config(), length, 1.0)
    assert metrics["flops"].value == pytest.approx(per_token * metrics["tokens"].value, rel=0.35 if fields else 0.02)


@pytest.mark.parametrize("optimizer", ["lion", "lomo"])
def test_any_optimizer_prefers(base: Path, tmp_path: Path, optimizer: str) -> None:
    """Also one that moves in the backward pass."""
    metrics = finetuned(base, tmp_path, "dpo", method="full", optimizer={"method": optimizer}, learning_rate=1e-3)
    assert metrics["preference_loss"].value < log(2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_plan_knows_what_an_objective_costs(objective: str) -> None:
    """More FLOPs and time than chats of that size, and every headline is known."""
    names = ("sft", objective)
    chats, made = (predicted(params(finetune__objective__method=name), MACHINE) for name in names)
    for name in ("flops", "training_seconds"):
        assert value(made, "finetune", name) > value(chats, "finetune", name)
    assert value(made, "finetune", "peak_memory_bytes") > 0
    assert value(made, "finetune", "optimizer_bytes") == value(chats, "finetune", "optimizer_bytes")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # gguf's open file
def test_dpo_on_the_real_model(tmp_path: Path) -> None:
    """SmolLM2-135M, LoRA, two steps: the loss of a coin at first, an adapter that plain peft loads, a merged model."""
    from peft import PeftModel

    from tasks.acquire import describe

    (tmp_path / "pretrain").mkdir()
    describe(ROOT / "data" / "smollm2.yaml").make(tmp_path / "pretrain")
    (tmp_path / "data" / "instructions" / "preferences").mkdir(parents=True)
    (tmp_path / "data" / "instructions" / "preferences" / "train.jsonl").write_text(json.dumps(PAIR) + "\n")
    for place in ("instructions/test.jsonl", "heldout.jsonl"):
        row = {"text": TEXTS[0], "messages": [*ASKED, *YES]}
        (tmp_path / "data" / place).write_text(json.dumps(row) + "\n")
    metrics = finetuned(tmp_path, tmp_path, "dpo", steps=2, batch_size=1, schedule={"warmup_steps": 0})
    first, last = history(tmp_path)
    assert first["loss"] == pytest.approx(log(2), abs=1e-4)
    assert last["rewards/margins"] > first["rewards/margins"]
    assert metrics["trainable_parameters"].value < 0.05 * metrics["parameters"].value
    assert PeftModel.from_pretrained(load_model(tmp_path / "pretrain"), tmp_path / "out" / "adapter") is not None
    assert load_model(tmp_path / "out") is not None
