"""Preference objectives and GRPO: trl's losses in the project's loop, on the base's own tokens, against the base model."""

from __future__ import annotations

import csv
import json
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import OverBudget, UserError
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.finetune.conflicts import dealer
from tasks.finetune.lesson import Given
from tasks.finetune.objective.dpo import Dpo
from tasks.finetune.objective.grpo import Grpo
from tasks.finetune.objective.kto import Kto
from tasks.finetune.preference.reference import Reference
from tasks.finetune.preference.rewards import REWARDS, told
from tasks.finetune.preference.rows import PAIRS, answered, read
from tasks.finetune.run import run
from tasks.ledger.predict import plan as predicted
from tasks.models.load import load_model, new_model, save_model
from tests.conftest import ROOT
from tests.models import MACHINE, TEXTS, config, job, plan, tokenizer
from tests.test_predict import params, value

ASKED = [{"role": "user", "content": "Is it so?"}]
YES, NO = ([{"role": "assistant", "content": text}] for text in ("yes", "no, no"))
PAIR = {"prompt": ASKED, "chosen": YES, "rejected": NO}
ROWS: dict[str, list[Any]] = {
    "preferences": [PAIR] * 4,
    "unpaired": [{"prompt": ASKED, "completion": text, "label": text is YES} for text in (YES, NO)] * 2,
    "verifiable": [{"prompt": ASKED, "answer": "yes"}] * 4,
}
OBJECTIVES = [name for name in Finetune().objective.techniques() if name != "sft"]
SIDED = [name for name in OBJECTIVES if name != "grpo"]
SHORT = {"num_generations": 4, "max_completion_length": 8, "rewards": ["similarity"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, with rows of every kind."""
    root = tmp_path_factory.mktemp("base")
    save_model(new_model(config(), seed=0), tokenizer(), root / "pretrain")
    for folder, rows in {".": [{"messages": [*ASKED, *YES]}], **ROWS}.items():
        (root / "data" / "instructions" / folder).mkdir(parents=True, exist_ok=True)
        for name in ("train", "validation", "test"):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (root / "data" / "instructions" / folder / f"{name}.jsonl").write_text(text)
    (root / "data" / "heldout.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    return root


def finetuned(base: Path, folder: Path, objective: str, fields: Any = None, place: Any = None, **changes: Any) -> Any:
    """Run the stage; returns its metrics."""
    values = {"steps": 3, "batch_size": 2, "context_length": 64, "precision": "fp32", "learning_rate": 5e-3} | changes
    chosen = {"method": objective, **({objective: fields} if fields else {})}
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    return run(
        Finetune(**values, objective=chosen),
        seed=0,
        evaluate=Evaluate(context_length=64, sample_tokens=4),
        data=base / "data",
        pretrain=base / "pretrain",
        out=out,
        job=place or job(folder),
    )


def history(folder: Path) -> list[dict[str, float]]:
    """The rows a run left."""
    with (folder / "work" / "history.csv").open(encoding="utf-8") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def given(base: Path, folder: Path, **changes: Any) -> Given:
    """What an objective is given."""
    fields: Any = {"context_length": 64, "batch_size": 2, "seed": 0, "precision": "fp32"} | changes
    loaded = load_model(base / "pretrain")
    deal = partial(dealer, Finetune(batch_size=fields["batch_size"]), seed=fields["seed"], packed=False)
    return Given(
        data=base / "data",
        tokenizer=tokenizer(),
        job=job(folder),
        reload=lambda: loaded,
        packed=False,
        deal=deal,
        **fields,
    )


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
