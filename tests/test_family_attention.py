"""Families with attention in every layer: windows, latents, experts. Arithmetic, training, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks import accounting
from tasks.design import Design
from tasks.design.olmo3 import Olmo3
from tasks.models.load import count_parameters, load_model, new_model, read_config
from tasks.training.flops import counting
from tests.attention_families import CASES, WINDOW, blueprint, flops, ids

FAMILIES = ["mobilellm", "mistral", "olmo3", "deepseek_v3", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe"]
every_case = pytest.mark.parametrize("case", CASES)


@every_case
def test_every_parameter_is_counted(case: str) -> None:
    """The number of parameters is that of the model transformers builds, exactly."""
    config = blueprint(case)
    assert accounting.parameters(config) == count_parameters(new_model(config, 0))


@every_case
@pytest.mark.parametrize("length", [WINDOW // 2, 40])
def test_flops_are_those_of_the_operators_that_run(case: str, length: int) -> None:
    """Forward pass, and forward and backward, within half a percent, in a context below and one above the window."""
    config = blueprint(case)
    model = new_model(config, 0)
    forward = length * accounting.forward_flops_per_token(config, length)
    training = length * accounting.training_flops_per_token(config, length)
    assert flops(model.eval(), length, backward=False) == pytest.approx(forward, rel=0.005)
    assert flops(model.train(), length, backward=True) == pytest.approx(training, rel=0.005)


@every_case
@pytest.mark.parametrize("length", [3, WINDOW, 40])
def test_cache_and_decoding_are_what_transformers_keeps_and_does(case: str, length: int) -> None:
    """Bytes of its own cache, and FLOPs of one more token, below, at and above the window."""
    import torch

    config = blueprint(case)
    model = new_model(config, 0)
    with torch.no_grad():
        cache = model(input_ids=ids(length - 1), use_cache=True).past_key_values
        with counting() as counter:
            cache = model(input_ids=ids(1), past_key_values=cache, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == accounting.cache_bytes(config, length, bytes_per_element=4)
    assert counter.total == pytest.approx(accounting.decode_flops_per_token(config, length), rel=0.005)


@pytest.mark.parametrize("case", ["deepseek_v3, experts", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe, some dense"])
def test_a_token_passes_the_active_parameters(case: str) -> None:
    """Those with no gradient after a single token are the experts it wasn't sent to."""
    config = blueprint(case)
    model = new_model(config, 0).train()
    model.get_decoder()(input_ids=ids(1), use_cache=False).last_hidden_state.square().sum().backward()
    spared = sum(
        weight[0].numel() * int((weight.grad.flatten(1).abs().sum(1) == 0).sum())
        for name, weight in model.named_parameters()
        if ".experts." in name
    )
    assert spared > 0
    assert accounting.active_parameters(config) == accounting.parameters(config) - spared


@every_case
def test_trains_generates_saves_and_reloads(case: str, tmp_path: Path) -> None:
    """The loss of a repeated batch falls; the files give the same model, and their config the same arithmetic."""
    import torch

    config = blueprint(case)
    model = new_model(config, 0).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(5):
        loss = model(input_ids=ids(24), labels=ids(24), use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    model.eval().save_pretrained(tmp_path)
    again = load_model(tmp_path)
    state, loaded = model.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)
    said = [one.generate(ids(20), max_new_tokens=6, do_sample=False, pad_token_id=0) for one in (model, again)]
    assert torch.equal(*said)
    saved = read_config(tmp_path)
    assert accounting.parameters(saved) == accounting.parameters(config)
    assert accounting.cache_bytes(saved, 40) == accounting.cache_bytes(config, 40)


@pytest.mark.parametrize("method", FAMILIES)
@pytest.mark.parametrize("budget", [3_000_000, 20_000_000])
def test_budget_of_parameters_is_kept(method: str, budget: int) -> None:
    """The model is the largest of its family's ladder within the budget, and valid."""
    family: Any = Design.techniques()[method]
    made = family(parameters=budget).blueprint(400, Path())
    assert 0.2 * budget < accounting.parameters(made) <= budget
    assert family(parameters=budget).blueprint(400, Path()) == made


def test_what_sizes_leave_alone_is_kept() -> None:
    """A budget changes sizes, neither the number of experts, nor which layers have some, nor plain queries."""
    techniques: Any = Design.techniques()
    sparse = techniques["qwen3_moe"](
        parameters=9_000_000, num_experts=12, decoder_sparse_step=2, mlp_only_layers=[1]
    ).blueprint(400, Path())
    assert (sparse["num_experts"], sparse["decoder_sparse_step"], sparse["mlp_only_layers"]) == (12, 2, [1])
    plain = techniques["deepseek_v3"](parameters=9_000_000, q_lora_rank=None).blueprint(400, Path())
    assert plain["q_lora_rank"] is None


@pytest.mark.parametrize("method", FAMILIES)
def test_defaults_can_take_the_default_s_place(method: str) -> None:
    """With the default vocabulary a family's default is about as large as the default model, and sees as far."""
    techniques: Any = Design.techniques()
    usual, made = (techniques[name]().config(4096) for name in ("llama", method))
    assert 0.8 < accounting.parameters(made) / accounting.parameters(usual) < 1.3
    assert made["max_position_embeddings"] == usual["max_position_embeddings"]


def test_the_last_layer_of_a_mix_is_global() -> None:
    """One of every four layers sees everything, counted from the end; both kinds get the rotary base asked for."""
    from transformers import AutoConfig

    config = Olmo3(rope_theta=777.0).config(400)
    assert [kind[0] for kind in config["layer_types"]] == ["s", "f", "s", "s", "s", "f"]
    rope = AutoConfig.for_model(**config).rope_parameters
    assert {kind["rope_theta"] for kind in rope.values()} == {777.0}


SHAPE = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
EXISTING = [
    "mistral",
    "olmo3",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma2",
    "gemma3_text",
    "deepseek_v3",
    "mixtral",
    "olmoe",
    "qwen2_moe",
    "qwen3_moe",
]


@pytest.mark.parametrize("kind", EXISTING)
def test_what_a_config_leaves_out_is_read_as_transformers_reads_it(kind: str) -> None:
    """Parameters and windows of upstream's own default model, from a config that says no more than the shape."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.cache_utils import get_layer_types_and_kwargs

    full = AutoConfig.for_model(kind, num_hidden_layers=7)
    with torch.device("meta"):
        size = count_parameters(AutoModelForCausalLM.from_config(full))
    sliding = [layer == "sliding_attention" for layer in get_layer_types_and_kwargs(full)[0]]
    for config in ({"model_type": kind, **{name: getattr(full, name) for name in SHAPE}}, full.to_dict()):
        assert accounting.parameters(config) == size
        parts: list[Any] = [part for block in accounting.read(config).blocks for part in block.mixings]
        assert [part.window is not None for part in parts] == sliding
