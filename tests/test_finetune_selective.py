"""Training some of the model's own weights, and all of them in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.errors import UserError
from tasks.finetune.badam import Badam
from tasks.finetune.bitfit import Bitfit
from tasks.finetune.diff_pruning import DiffPruning
from tasks.finetune.layers import Layers
from tasks.finetune.lisa import Lisa
from tasks.finetune.shared.hard_concrete import HIGH, LOW, Difference
from tasks.finetune.technique import FinetuneTechnique
from tasks.models.difference import with_difference
from tasks.models.load import cast, load_model, new_model, save_model
from tasks.optimizers.adamw import AdamW
from tasks.training.loop import Loop
from tests.models import config, plan, tokenizer
from tests.tuning import DEEP, LABELLED, LENGTH, STEPS, loop

SELECTIVE: dict[str, FinetuneTechnique] = {
    "layers": Layers(last=1),
    "bitfit": Bitfit(),
    "lisa": Lisa(n_layers=1, interval_steps=2),
    "badam": Badam(switch_block_every=2),
    "badam, ends too": Badam(
        switch_block_every=2, switch_mode="ascending", include_embedding=True, include_lm_head=True
    ),
    "diff_pruning": DiffPruning(target_sparsity=0.01),
}
EVERY = pytest.mark.parametrize("name", SELECTIVE)


def ends(technique: FinetuneTechnique, folder: Path, stop: int | None = None) -> dict[str, Any]:
    """Weights of the merged model; `stop`: killed before that step, and started again."""
    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            loop(technique, folder, stop=stop)[0].run()
    running, tuning = loop(technique, folder)
    running.run()
    merged: Any = tuning.merged()
    return {name: value.clone() for name, value in merged.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "stop"), [*((name, 3) for name in SELECTIVE), ("badam", 4), ("lisa", 4), ("diff_pruning", 5)]
)
def test_a_killed_run_goes_on_bit_for_bit(name: str, stop: int, tmp_path: Path) -> None:
    """Killed within a turn, at its border, or behind the cut, and started again: the same weights."""
    straight = ends(SELECTIVE[name], tmp_path / "straight")
    again = ends(SELECTIVE[name], tmp_path / "killed", stop)
    assert all(value.equal(again[key]) for key, value in straight.items())


@EVERY
def test_base_and_difference_are_the_model(name: str, tmp_path: Path) -> None:
    """What is delivered, put into the base, is the merged model bit for bit, in bfloat16; its bytes are those predicted."""
    base, technique = tmp_path / "base", SELECTIVE[name]
    save_model(cast(new_model(DEEP, seed=0), torch.bfloat16), tokenizer(), base)
    running, tuning = loop(technique, tmp_path / "job", base=base)
    running.run()
    assert tuning.write(tmp_path / "adapter")
    save_model(cast(tuning.merged(), torch.bfloat16), tokenizer(), tmp_path / "out")
    whole, put = load_model(tmp_path / "out"), with_difference(base, tmp_path / "adapter")
    assert put.config.to_dict() == whole.config.to_dict() | {"_name_or_path": put.config.to_dict()["_name_or_path"]}
    found = put.state_dict()
    assert all(value.equal(found[key]) and value.dtype == found[key].dtype for key, value in whole.state_dict().items())
    before = load_model(base).state_dict()
    assert any(key not in before or not value.equal(before[key]) for key, value in found.items())
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    tensors = technique.delivered(DEEP, 2, STEPS, 0)
    assert sum(element * prod(shape) + 100 for shape, element in tensors) == pytest.approx(size, rel=0.1, abs=1500)
    save_model(cast(new_model(DEEP, seed=1), torch.bfloat16), tokenizer(), tmp_path / "other")
    with pytest.raises(UserError, match="made for another base"):
        with_difference(tmp_path / "other", tmp_path / "adapter")


@pytest.mark.parametrize("tied", [True, False])
@EVERY
def test_figures_are_predicted(name: str, tied: bool, tmp_path: Path) -> None:
    """Trainable parameters, optimizer bytes and FLOPs of a run are those said from the config alone."""
    made, technique = config(num_hidden_layers=3, tie_word_embeddings=tied), SELECTIVE[name]
    running, tuning = loop(technique, tmp_path, made=made)
    shapes = technique.trained_shapes(made)
    assert tuning.trainable() == sum(map(prod, shapes))
    metrics = running.run()
    if name != "badam, ends too":  # whose last turn is not the largest block's
        assert metrics["optimizer_bytes"].value == pytest.approx(AdamW().state_bytes(shapes), rel=0.01)
    tokens = STEPS * 2 * LENGTH
    flops = technique.mean_flops_per_token(made, LENGTH, LABELLED, STEPS, 0) * tokens
    assert metrics["flops"].value == pytest.approx(flops, rel=0.005)


@contextmanager
def watched(running: Loop, seen: list[set[str]]) -> Iterator[None]:
    """After every step: names of what moved, and a check that the optimizer remembers nothing else."""
    before = {name: p.detach().clone() for name, p in running.model.named_parameters()}
    after_step = running.hooks.after_step

    def look(step: int) -> None:
        after_step(step)
        now = dict(running.model.named_parameters())
        seen.append({name for name, p in now.items() if not p.equal(before[name])})
        states = {id(p) for p, row in running.optimizer.state.items() if row}
        assert states == {id(now[name]) for name in seen[-1]}
        before.update({name: p.detach().clone() for name, p in now.items()})

    running.hooks.after_step = look  # type: ignore[method-assign]
    yield


@pytest.mark.parametrize("name", ["lisa", "badam"])
def test_what_rests_neither_moves_nor_is_remembered(name: str, tmp_path: Path) -> None:
    """Of three layers one learns at a time, for two steps; which, changes; only LISA's ends learn beside it."""
    running, _ = loop(SELECTIVE[name], tmp_path)
    seen: list[set[str]] = []
    with watched(running, seen):
        running.run()
    blocks = [{key.split(".")[2] for key in moved if ".layers." in key} for moved in seen]
    assert all(len(block) == 1 for block in blocks)
    assert blocks[0::2] == blocks[1::2]
    outside = [{key for key in moved if ".layers." not in key} for moved in seen]
    assert set(map(len, outside)) == ({2} if name == "lisa" else {0})
    if name == "badam":
        assert {next(iter(block)) for block in blocks} == {"0", "1", "2"}


@pytest.mark.parametrize("mode", ["random", "ascending", "descending"])
def test_badam_gives_every_block_its_turn(mode: str) -> None:
    """In every round each block once, in the order asked for; random is another one each round."""
    technique = Badam(switch_mode=mode, switch_block_every=3)
    made = config(num_hidden_layers=8)
    rounds = [[min(technique.part_at(made, 3 * (8 * turn + n) + 2, 0).blocks) for n in range(8)] for turn in range(2)]
    assert all(sorted(turn) == list(range(8)) for turn in rounds)
    assert (rounds[0] == list(range(8))) == (mode == "ascending")
    assert (rounds[0] == list(range(8))[::-1]) == (mode == "descending")
    assert (rounds[0] == rounds[1]) == (mode != "random")


def test_layers_are_those_that_are_named() -> None:
    """By number, or the last ones, with the norm behind them or without; no other tensor learns."""
    for technique, numbers, norm in (
        (Layers(layers_to_transform=[0, 2]), {"0", "2"}, True),
        (Layers(norm=False), {"1", "2"}, False),
    ):
        model = technique.begin(new_model(DEEP, seed=0), plan()).model
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        assert {name.split(".")[2] for name in names if ".layers." in name} == numbers
        assert {name for name in names if ".layers." not in name} == ({"model.norm.weight"} if norm else set())
    assert "5" in Layers(layers_to_transform=[1, 5]).refuse(DEEP)
    assert "last: found 4" in Layers(last=4).refuse(DEEP)
    assert "n_layers: found 4" in Lisa(n_layers=4).refuse(DEEP)


def test_bitfit_adds_biases_where_the_architecture_has_a_place() -> None:
    """New biases change nothing at first; a model that has none and no place for any is refused in words."""
    model, ids = new_model(DEEP, seed=0), torch.arange(20)[None]
    with torch.inference_mode():
        before = model(ids).logits
        adapted = Bitfit().begin(model, plan()).model
        assert torch.equal(before, adapted(ids).logits)
    assert {name.rpartition(".")[2] for name, p in adapted.named_parameters() if p.requires_grad} == {"bias"}
    assert "add to true" in Bitfit(add=False).refuse(DEEP)
    assert Bitfit(add=False).refuse(config(attention_bias=True)) == ""
    assert "another finetune.method" in Bitfit().refuse(config(model_type="mistral"))


def test_gates_learn_what_their_formula_says() -> None:
    """Gradients of differences and gates are autograd's of the formula; the penalty closes gates that nothing opens."""
    part = Difference(torch.randn(5, 7), 0.3, 2.0, 0.25)
    part.train()
    with torch.no_grad():
        part.difference.normal_()
        part.alpha.normal_()
    base, wanted = torch.randn(5, 7), torch.randn(5, 7)
    torch.manual_seed(1)
    (part(base) * wanted).sum().backward()
    torch.manual_seed(1)
    difference, alpha = (p.detach().clone().requires_grad_() for p in (part.difference, part.alpha))
    logits = 0.3 + 2.0 * alpha
    noise = torch.logit(torch.rand(5, 7))
    gate = (torch.sigmoid(logits + noise) * (HIGH - LOW) + LOW).clamp(0, 1)
    penalty = 0.25 * torch.sigmoid(logits - torch.log(torch.tensor(-LOW / HIGH))).sum()
    (((base + gate * difference) * wanted).sum() + penalty).backward()
    assert torch.allclose(part.difference.grad, difference.grad, atol=1e-5)
    assert torch.allclose(part.alpha.grad, alpha.grad, atol=1e-5)


def test_a_pruned_difference_is_as_sparse_as_asked(tmp_path: Path) -> None:
    """One weight in a hundred differs, no more; embeddings and norms don't; what differs learned on after the cut."""
    start = new_model(DEEP, seed=0).state_dict()
    end = ends(SELECTIVE["diff_pruning"], tmp_path)
    moved = {key: int((value != start[key]).sum()) for key, value in end.items()}
    linear = {key: value for key, value in moved.items() if "_proj" in key}
    assert sum(linear.values()) == pytest.approx(0.01 * sum(start[key].numel() for key in linear), rel=0.02)
    assert sum(moved.values()) == sum(linear.values())


def test_a_difference_must_be_one(tmp_path: Path) -> None:
    """An adapter of another format is told apart from a difference."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_model(new_model(DEEP, seed=0), tokenizer(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    with pytest.raises(UserError, match="no difference of a model"):
        with_difference(tmp_path, tmp_path)
