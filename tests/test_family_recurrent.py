"""Families with a state instead of a past, and the ternary one: exact costs, a whole small life in transformers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tasks import accounting
from tasks.accounting import lora
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.design import Design
from tasks.finetune.lora import Lora
from tasks.models.load import load_model, new_model, save_model
from tasks.training.flops import counting
from tasks.training.loss import next_token_loss
from tests.models import adapted, tokenizer

VOCAB = 400
HEADS = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 16, "mamba_chunk_size": 32}
DELTA = {"head_dim": 32, "linear_key_head_dim": 16, "linear_value_head_dim": 32, "full_attention_interval": 2}

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba2": (
        "mamba2",
        {"hidden_size": 128, "num_hidden_layers": 3, "head_dim": 32, "state_size": 16, "chunk_size": 32},
    ),
    "mamba2, groups, untied": (
        "mamba2",
        {"hidden_size": 128, "num_hidden_layers": 2, "num_heads": 4, "n_groups": 2, "tie_word_embeddings": False},
    ),
    "bamba": ("bamba", {**HEADS, **MAMBA, "num_hidden_layers": 3}),
    "bamba, mostly attention": (
        "bamba",
        {**HEADS, **MAMBA, "num_hidden_layers": 2, "attn_layer_offset": 0, "attn_layer_period": 2},
    ),
    "qwen3_next": ("qwen3_next", {**HEADS, **DELTA, "num_hidden_layers": 2, "moe_intermediate_size": 32}),
    "qwen3_next, dense": ("qwen3_next", {**HEADS, **DELTA, "num_hidden_layers": 3, "num_experts": 0}),
    "rwkv": ("rwkv", {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}),
    "bitnet": ("bitnet", {**HEADS, "num_hidden_layers": 2}),
}
every_shape = pytest.mark.parametrize(("method", "changes"), SHAPES.values(), ids=SHAPES.keys())
CONTEXTS = [64, 90]
"""One fills its chunks, the other doesn't."""


def family(method: str, changes: dict[str, Any]) -> Any:
    """The technique with some of its fields changed."""
    return validate(Design, {"method": method, method: changes}).technique


def ids(length: int, rows: int = 1) -> Any:
    """Random tokens, the same every time."""
    import torch

    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def state_bytes(outputs: Any) -> int:
    """Bytes transformers keeps of what it has read, in whatever object the family keeps it."""
    if getattr(outputs, "state", None) is not None:
        return sum(part.nbytes for part in outputs.state)
    cache = getattr(outputs, "past_key_values", None) or outputs.cache_params
    held = []
    for layer in cache.layers:
        held += [*getattr(layer, "conv_states", {}).values(), *getattr(layer, "recurrent_states", {}).values()]
        held += [getattr(layer, "keys", None), getattr(layer, "values", None)]
    return sum(part.nbytes for part in held if part is not None)


@every_shape
def test_parameters_are_transformers_own_count(method: str, changes: dict[str, Any]) -> None:
    """Every weight once, and of the experts of a layer those one token passes."""
    config = family(method, changes).config(VOCAB)
    model = new_model(config, seed=0)
    assert accounting.parameters(config) == sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    spared = experts - experts * config.get("num_experts_per_tok", 1) // (config.get("num_experts") or 1)
    assert accounting.active_parameters(config) == accounting.parameters(config) - (spared if experts else 0)


@every_shape
@pytest.mark.parametrize("context", CONTEXTS)
def test_flops_are_those_of_the_operators(method: str, changes: dict[str, Any], context: int) -> None:
    """Forward, forward and backward, and one more token after the context, within half a percent."""
    import torch

    config = family(method, changes).config(VOCAB)
    model, tokens = new_model(config, seed=0), ids(context)
    with torch.no_grad():
        with counting() as forward:
            read = model(input_ids=tokens, use_cache=True)
        kept = {n: read[n] for n in ("past_key_values", "cache_params", "state") if read.get(n) is not None}
        with counting() as decode:
            model(input_ids=tokens[:, :1], use_cache=True, **kept)
    model.train()
    with counting() as training:
        next_token_loss(model, tokens, tokens).backward()
    assert forward.total / context == pytest.approx(accounting.forward_flops_per_token(config, context), rel=0.005)
    assert training.total / context == pytest.approx(accounting.training_flops_per_token(config, context), rel=0.005)
    assert decode.total == pytest.approx(accounting.decode_flops_per_token(config, context + 1), rel=0.005)


@every_shape
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_the_state_is_as_large_as_predicted(method: str, changes: dict[str, Any], kind: str) -> None:
    """Bytes of transformers' own cache, whose recurrent states stay in single precision."""
    import torch

    config = family(method, changes).config(VOCAB)
    dtype = getattr(torch, kind)
    model = new_model(config, seed=0).to(dtype)
    for context in CONTEXTS:
        with torch.inference_mode():
            held = state_bytes(model(input_ids=ids(context), use_cache=True))
        assert held == accounting.cache_bytes(config, context, dtype.itemsize)


@every_shape
def test_a_whole_small_life(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """It learns a batch by heart, is saved, comes back bit for bit, computes the same and goes on writing."""
    import torch

    model = new_model(family(method, changes).config(VOCAB), seed=0).train()
    optimizer, batch = torch.optim.AdamW(model.parameters(), lr=3e-3), ids(24, rows=2)
    losses = []
    for _ in range(8):
        loss = next_token_loss(model, batch[:, :-1], batch[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    model.eval()
    save_model(model, tokenizer(VOCAB), tmp_path)
    back = load_model(tmp_path)
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.inference_mode():
        assert torch.equal(model(input_ids=batch).logits, back(input_ids=batch).logits)
        written = back.generate(batch[:1, :8], max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert written.shape[1] > 8


def test_a_model_of_many_layers_survives_evaluation_and_saving(tmp_path: Path) -> None:
    """RWKV: going to evaluation and back, and through a file in between, leaves deep layers' weights alone."""
    import torch

    changes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8}
    model = new_model(family("rwkv", changes).config(VOCAB), seed=0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.eval()(input_ids=ids(4))
    save_model(model, tokenizer(VOCAB), tmp_path)
    back = load_model(tmp_path)
    back(input_ids=ids(4))
    assert all(torch.equal(before[name], weight) for name, weight in back.state_dict().items())


@pytest.mark.parametrize("method", ["mamba2", "bamba", "qwen3_next", "rwkv", "bitnet"])
def test_a_budget_is_kept(method: str) -> None:
    """The largest member of the family that fits a number of parameters, and no smaller one than need be."""
    budget = 30_000_000
    config = family(method, {"parameters": budget}).blueprint(4096, Path())
    assert 0.7 * budget < accounting.parameters(config) <= budget
    smallest = next(family(method, {}).ladder())
    assert accounting.parameters(smallest.config(4096)) < 1_500_000
    with pytest.raises(ValueError, match="the smallest of this family"):
        family(method, {"parameters": 1000}).blueprint(4096, Path())


@pytest.mark.parametrize("method", ["mamba2", "bamba", "qwen3_next", "rwkv", "bitnet"])
def test_defaults_are_about_five_million(method: str) -> None:
    """With a vocabulary of 4096, so that families can be compared as they come."""
    assert 4.9e6 < accounting.parameters(family(method, {}).config(4096)) < 6.1e6


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "heads of mamba2": (
        "mamba2",
        {"num_heads": 6},
        "num_heads 6 x head_dim 64 = 384 must equal expand 2 x hidden_size",
    ),
    "groups": ("mamba2", {"n_groups": 3}, "num_heads 8 is not divisible by n_groups 3"),
    "no chunk": ("mamba2", {"chunk_size": 0}, "chunk_size: found 0"),
    "heads of bamba": ("bamba", {"mamba_d_head": 32}, "mamba_n_heads 8 x mamba_d_head 32 = 256 must equal"),
    "groups of bamba": ("bamba", {"mamba_n_groups": 5}, "not divisible by mamba_n_groups 5"),
    "offset": ("bamba", {"attn_layer_offset": 3}, "attn_layer_offset 3 must be below attn_layer_period 3"),
    "no attention": ("bamba", {"num_hidden_layers": 2}, "no layer attends"),
    "value heads": ("qwen3_next", {"linear_num_value_heads": 3}, "not divisible by linear_num_key_heads 2"),
    "too few experts": ("qwen3_next", {"num_experts": 1}, "num_experts_per_tok 2 is above num_experts 1"),
    "rotary": ("qwen3_next", {"head_dim": 60}, "head_dim 60 is not divisible by 8"),
    "one layer": ("rwkv", {"num_hidden_layers": 1}, "num_hidden_layers: found 1"),
    "heads of bitnet": ("bitnet", {"num_key_value_heads": 3}, "not divisible by num_key_value_heads 3"),
    "unknown": ("rwkv", {"num_attention_heads": 4}, "unknown parameter"),
}


@pytest.mark.parametrize(("method", "changes", "said"), BAD.values(), ids=BAD.keys())
def test_sizes_that_do_not_fit_are_refused(method: str, changes: dict[str, Any], said: str) -> None:
    """Before anything is built: the field, what was found, what it has to fit."""
    with pytest.raises(UserError, match=f"design.{method}.*") as caught:
        validate(Design, {"method": method, method: changes}, "design")
    assert said in str(caught.value)


TARGETS: list[tuple[str, str | list[str]]] = [
    ("mamba2", "all-linear"),
    ("mamba2", r".*layers\.[12]\.mixer\.in_proj"),
    ("bamba", "all-linear"),
    ("bamba", ["q_proj", "v_proj"]),
    ("qwen3_next, dense", ["in_proj_qkvz", "o_proj"]),
    ("rwkv", "all-linear"),
]


@pytest.mark.parametrize(("name", "targets"), TARGETS, ids=str)
def test_lora_through_a_frozen_recurrence(name: str, targets: str | list[str]) -> None:
    """peft trains the weights that were predicted, and the operators cost what was, within half a percent."""
    method, changes = SHAPES[name]
    config, context = family(method, changes).config(VOCAB), 90
    model = adapted(Lora(r=4, target_modules=targets), new_model(config, seed=0)).train()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lora.trainable_parameters(config, 4, targets) == trained
    with counting() as counter:
        next_token_loss(model, ids(context), ids(context)).backward()
    predicted = lora.training_flops_per_token(config, context, 4, targets)
    assert counter.total / context == pytest.approx(predicted, rel=0.005)


@every_shape
def test_nothing_is_said_and_no_kernel_fetched(
    method: str, changes: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building and running opens no connection and leaves no line of a library's on the screen."""
    import socket

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with caplog.at_level(logging.WARNING):
        new_model(family(method, changes).config(VOCAB), seed=0)(input_ids=ids(8))
    assert not caplog.records
