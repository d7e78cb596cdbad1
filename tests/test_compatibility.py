"""Impossible combinations are told from parameters and config alone; unlikely ones are warned of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows import forecast
from tasks.compatibility import check, problems
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.design import Design
from tasks.design.advice import warnings
from tasks.params import Params, flatten, override
from tests.models import config

NO_GGUF = {
    "deploy_profile.gguf": [],
    "deploy_profile.serve": "safetensors",
    "deploy_profile.engines": ["transformers"],
}


def chosen(**assignments: Any) -> Params:
    """The defaults with these values, `__` for a dot, in their place."""
    values = {name.replace("__", "."): value for name, value in assignments.items()}
    return validate(Params, override(Params().model_dump(mode="json"), values))


def blueprint(params: Params) -> dict[str, Any]:
    """The config a family leads to."""
    made: dict[str, Any] = params.design.technique.config(4096)
    return made


def test_the_defaults_are_possible() -> None:
    """Nothing stands in the way of the default lifecycle."""
    params = Params()
    assert problems(params, blueprint(params)) == []
    check(params, blueprint(params))


@pytest.mark.parametrize("method", [name for name in Design.techniques() if name != "existing"])
def test_every_family_can_go_all_the_way(method: str) -> None:
    """With safetensors delivered, uncompressed, and every weight fine-tuned, no family meets an obstacle."""
    names = {name.replace(".", "__"): value for name, value in NO_GGUF.items()}
    params = chosen(design__method=method, compress__method="none", finetune__method="full", **names)
    assert problems(params, blueprint(params)) == []


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ({"design__method": "mamba2"}, "deploy_profile.gguf: found F16, Q8_0, Q4_0; Mamba2ForCausalLM cannot"),
        ({"design__method": "bitnet"}, "set finetune.method to full"),
        ({"design__method": "bitnet", "compress__method": "nf4"}, "are bitnet already"),
        ({"design__llama__hidden_size": 96, "compress__method": "nf4", "design__llama__intermediate_size": 100}, "nf4"),
        (
            {"design__method": "deepseek_v3", "finetune__lora__target_modules": ["q_a_proj", "gate_proj"]},
            "gate_proj can't be adapted in deepseek_v3",
        ),
        (
            {"design__method": "qwen3_moe", "design__qwen3_moe__moe_intermediate_size": 100},
            "its experts read 100 numbers; products of experts need multiples of 8",
        ),
        ({"pretrain__context_length": 4096}, "pretrain.context_length: found 4096; the model has 1024 positions"),
        ({"design__method": "rwkv", "evaluate__context_length": 4096}, "evaluate.context_length: found 4096"),
        ({"deploy_profile__prompt_tokens": 1000}, "deploy_profile.prompt_tokens + deploy_profile.max_new_tokens"),
        ({"finetune__lora__target_modules": ["q_prj"]}, "no linear layer of this model has that name: down_proj"),
        (
            {"design__method": "olmoe", "design__olmoe__num_experts": 64, "pretrain__batch_size": 1,
             "pretrain__context_length": 4},
            "found 4 tokens a step",
        ),
    ],
)  # fmt: skip
def test_what_can_not_work_is_told_with_its_parameter(assignments: dict[str, Any], said: str) -> None:
    """Each problem names the parameter, what was found, and what to do."""
    params = chosen(**assignments)
    assert any(said in sentence for sentence in problems(params, blueprint(params)))
    with pytest.raises(UserError):
        check(params, blueprint(params))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"intermediate_size": 100}, "down_proj reads 100 numbers, which is no multiple of 32"),
        ({"vocab_size": 32000}, "the vocabulary is larger than the model"),
        ({"model_type": "mistral", "sliding_window": 128}, "sliding_window 128 holds all 128 positions"),
        (
            {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.0},
            "nothing keeps the 4 experts equally busy",
        ),
    ],
)
def test_unlikely_designs_are_warned_of(changes: dict[str, Any], said: str) -> None:
    """The sentence is there with the change and not without it."""
    assert any(said in sentence for sentence in warnings(config(**changes)))
    assert not any(said in sentence for sentence in warnings(config()))


def test_the_parameters_named_exist() -> None:
    """What a hint says to set can be set."""
    names = dict(flatten(Params().model_dump(mode="json")))
    assert set(NO_GGUF) <= set(names)


def test_tasks_nobody_knows_are_named_at_once() -> None:
    """Local ones, those of lm-eval, its groups and its tags pass; a typo doesn't, and says what was meant."""
    known = chosen(evaluate__tasks=["chats", "code", "verifiable", "arc_easy", "mmlu", "gsm8k"])
    assert problems(known, blueprint(known)) == []
    params = chosen(evaluate__tasks=["chat", "arc_eazy"])
    found = problems(params, blueprint(params))
    assert [line.partition(",")[0] for line in found] == [f"evaluate.tasks: found '{n}'" for n in ("chat", "arc_eazy")]
    assert "take chats, or one that" in found[0]
    assert "take chats or verifiable or code, or one that" in found[1]


def teacher(folder: Path, vocab_size: int = 4096) -> str:
    """A folder with the config of a model."""
    (folder / "config.json").write_text(json.dumps(config(vocab_size=vocab_size)))
    return str(folder)


def test_objectives_and_teachers_go_together(tmp_path: Path) -> None:
    """A teacher nobody learns from, none to learn from, one of another vocabulary; a top_k or depths beyond what there is."""
    distil, several = {"pretrain__objective__method": "distillation"}, {"pretrain__objective__method": "multi_token"}
    there = {"pretrain__teacher": teacher(tmp_path)}
    for assignments, said in (
        (there, "objective next_token learns from no teacher"),
        ({"pretrain__teacher": "data/smollm2.yaml", **several}, "objective multi_token learns from no teacher"),
        (distil, "pretrain.teacher: found data/none, and no model there"),
        ({**distil, **there, "pretrain__objective__distillation__top_k": 5000}, "found 5000; the vocabulary has 4096"),
        ({**several, "pretrain__objective__multi_token__mtp_num_layers": 256}, "found 256; sequences of 256 tokens"),
        (
            {
                **several,
                "pretrain__sampling__warmup_length": 8,
                "pretrain__objective__multi_token__mtp_num_layers": 8,
            },
            "found 8; sequences of 8 tokens",
        ),
    ):
        params = chosen(**assignments)
        (found,) = problems(params, blueprint(params))
        assert said in found
        assert problems(chosen(**assignments, pretrain__steps=0, finetune__steps=0), blueprint(params)) == []
    assert problems(chosen(**distil, **there), blueprint(Params())) == []
    assert problems(chosen(**several), blueprint(Params())) == []
    teacher(tmp_path, 300)
    params = chosen(**distil, **there)
    (found,) = problems(params, blueprint(params))
    assert "with a vocabulary of 300; the model has 4096" in found


def test_choices_of_pretraining_that_exclude_each_other_are_named() -> None:
    """Each impossible pair is one sentence with both parameters; a pass-through of no steps minds none of them."""
    compiled = {"pretrain__compile": "on", "pretrain__gradient_checkpointing": "selective"}
    averaged = {"pretrain__optimizer__method": "schedule_free", "pretrain__schedule__shape": "cosine"}
    fused = {"pretrain__optimizer__method": "lomo", "pretrain__gradient_accumulation_steps": 4}
    for assignments, said in (
        (compiled, ("pretrain.compile: found on", "pretrain.gradient_checkpointing")),
        (averaged, ("pretrain.schedule.shape: found cosine", "schedule_free")),
        (fused, ("pretrain.gradient_accumulation_steps: found 4", "lomo")),
    ):
        params = chosen(**assignments)
        found = "\n".join(problems(params, blueprint(params)))
        assert all(words in found for words in said)
        assert problems(chosen(**assignments, pretrain__steps=0), blueprint(params)) == []


def test_a_teacher_that_is_not_there_stops_nothing_halfway() -> None:
    """Distillation without a teacher is refused before anything runs, though its cost can't be predicted either."""
    with pytest.raises(UserError, match=r"pretrain\.teacher: found data/none, and no model there"):
        forecast.refuse_impossible(chosen(pretrain__objective__method="distillation"))
