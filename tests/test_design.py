"""Stage design: sizes, budgets of parameters, exact accounting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.accounting import parameters
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.design import Design
from tasks.design.llama import Llama
from tasks.design.run import run
from tests.models import config, job


def data(root: Path, vocab_size: int = 400) -> Path:
    """A data stage's output, as far as design reads it."""
    (root / "shards.json").write_text(json.dumps({"vocab_size": vocab_size}))
    return root


@pytest.mark.parametrize("budget", [200_000, 1_000_000, 5_000_000, 124_000_000])
def test_budget_of_parameters_is_kept(budget: int) -> None:
    """The model is the largest of its family's ladder within the budget."""
    blueprint = Llama(parameters=budget).blueprint(400, Path())
    assert 0.2 * budget < parameters(blueprint) <= budget


def test_too_small_a_budget_says_why() -> None:
    """A budget below the smallest model names the vocabulary's share."""
    with pytest.raises(ValueError, match="vocabulary of 4096"):
        Llama(parameters=1000).blueprint(4096, Path())


def test_blueprint_is_a_transformers_config(tmp_path: Path) -> None:
    """Transformers reads the blueprint, and the model it builds has the parameters it promises."""
    from transformers import AutoConfig, AutoModelForCausalLM

    metrics = run(Design(), data=data(tmp_path), init=tmp_path, out=tmp_path, job=job(tmp_path))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path / "blueprint.json"))
    assert sum(p.numel() for p in model.parameters()) == metrics["parameters"].value


def test_existing_takes_the_config_as_it_is(tmp_path: Path) -> None:
    """`existing` copies the model's own config; a vocabulary too small for the tokenizer is refused."""
    (tmp_path / "config.json").write_text(json.dumps(config()))
    run(Design(method="existing"), data=data(tmp_path), init=tmp_path, out=tmp_path, job=job(tmp_path))
    assert json.loads((tmp_path / "blueprint.json").read_text()) == config()
    with pytest.raises(UserError, match="pretrained"):
        run(Design(method="existing"), data=data(tmp_path, 500), init=tmp_path, out=tmp_path, job=job(tmp_path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "lama"}, "not one of llama, mobilellm"),
        ({"llama": {"hidden_size": 100, "num_attention_heads": 3}}, "not divisible"),
        ({"llama": {"num_key_value_heads": 3}}, "not divisible"),
        ({"llama": {"hidden_size": "wide"}}, "design.llama.hidden_size: found 'wide'"),
        ({"llama": {"hidden_sise": 64}}, "design.llama.hidden_sise: unknown parameter"),
        ({"llama": {"num_hidden_layers": 0}}, "greater than 0"),
    ],
)
def test_bad_sizes_are_refused_in_words(values: dict[str, object], said: str) -> None:
    """Path, what was found, what is allowed."""
    with pytest.raises(UserError, match=said):
        validate(Design, values, "design")
