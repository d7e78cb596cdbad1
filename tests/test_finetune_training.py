"""How the finetune stage trains: the same chats, the same curve, whatever makes it quicker or smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.compatibility import problems
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.ledger.predict.subject import Subject
from tasks.params import Params, override
from tests.finetuned import finetuned, losses, prepare
from tests.models import config, tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, with chats of many lengths."""
    return prepare(tmp_path_factory.mktemp("base"))


SAME_GRADIENT: list[dict[str, Any]] = [
    {"packing": "off"},
    {"gradient_accumulation_steps": 2},
    {"gradient_accumulation_steps": 4, "packing": "off"},
    {"gradient_checkpointing": "full"},
    {"gradient_checkpointing": "selective", "gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("changes", SAME_GRADIENT, ids=[",".join(map(str, c.values())) for c in SAME_GRADIENT])
def test_the_same_chats_give_the_same_curve(base: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Packed, in parts, or computed twice: the curve of losses and the validation losses are the same."""
    plain, other = tmp_path / "plain" / "out", tmp_path / "other" / "out"
    metrics, again = finetuned(base, plain), finetuned(base, other, **changes)
    assert losses(other) == pytest.approx(losses(plain), rel=1e-4)
    for name in ("validation_loss_before", "validation_loss"):
        assert again[name].value == pytest.approx(metrics[name].value, rel=1e-4)


DEALT: list[dict[str, Any]] = [
    {},
    {"packing": "off"},
    {"gradient_accumulation_steps": 2, "group_by_length": True},
    {"gradient_checkpointing": "full", "neftune_noise_alpha": 5.0},
]


@pytest.mark.parametrize("changes", DEALT, ids=[",".join(c) or "default" for c in DEALT])
def test_tokens_and_flops_are_said_before(
    base: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the sizes the data stage leaves: every token exactly, FLOPs within one percent."""
    from tasks.ledger.predict import chats
    from tasks.ledger.predict.training import finetune
    from tasks.models.chat import sizes_of
    from tests.models import MACHINE

    lines = (base / "data" / "instructions" / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line)["messages"] for line in lines]
    asked = {"steps": 4, "batch_size": 4, "context_length": 128, "precision": "fp32", "learning_rate": 5e-3} | changes
    flat = {f"finetune.{name}": value for name, value in asked.items()} | {"seed": 0}
    params = validate(Params, override(Params().model_dump(mode="json"), flat))
    sizes = {
        "of": params.data.identity,
        "tokens_and_labelled": {"train": [sizes_of([chat], tokenizer()) for chat in rows]},
    }
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    monkeypatch.setattr(chats, "SIZES", tmp_path / "sizes.json")
    about = Subject(params, MACHINE, 1, 1, 1, 400, 3.0, 3.0, config(), 4)
    said, metrics = finetune(about), finetuned(base, tmp_path / "out", **changes)
    assert metrics["tokens"].value == said["tokens"].value
    assert metrics["flops"].value == pytest.approx(said["flops"].value, rel=0.01)
    assert "the chats themselves" in said["flops"].note


def test_packing_multiplies_less(base: Path, tmp_path: Path) -> None:
    """Fewer tokens and FLOPs for the same chats."""
    packed = finetuned(base, tmp_path / "a" / "out")
    apart = finetuned(base, tmp_path / "b" / "out", packing="off")
    assert packed["tokens"].value < apart["tokens"].value
    assert packed["flops"].value < apart["flops"].value


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gradient_accumulation_steps": 5}, "a step has 4 chats"),
    ({"gradient_accumulation_steps": 2, "optimizer": {"method": "lomo"}}, "lomo updates a tensor as soon as"),
    ({"early_stopping_patience": 2, "eval_every": 4}, "first looked at after 4 steps"),
    ({"packing": "sometimes"}, "finetune.packing|packing: found 'sometimes'"),
    ({"neftune_noise_alpha": 0}, "neftune_noise_alpha: found 0"),
    ({"early_stopping_patience": 0}, "early_stopping_patience: found 0"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_wrong_values_are_said(base: Path, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Path, what was found, what to do; before anything is trained, and in the plan as in the stage."""
    with pytest.raises(UserError, match=said):
        finetuned(base, tmp_path / "out", **changes)
    try:
        flat = {f"finetune.{name}": value for name, value in changes.items() if name != "optimizer"}
        method = {"finetune.optimizer.method": changes["optimizer"]["method"]} if "optimizer" in changes else {}
        steps = {"finetune.batch_size": 4, "finetune.steps": 4}
        params = validate(Params, override(Params().model_dump(mode="json"), flat | method | steps))
    except UserError:
        return
    assert any(line.startswith("finetune.") and said in line for line in problems(params, config()))
