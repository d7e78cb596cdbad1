"""Objectives: several tokens at once beside the next, by hand arithmetic; FLOPs counted as they are predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.job import Job
from tasks.models.chat import IGNORED
from tasks.models.load import new_model
from tasks.objectives.multi_token import MultiToken, MultiTokenLoss
from tasks.objectives.next_token import NextToken
from tasks.training.batch import Batch
from tasks.training.gradient import Gradient
from tasks.training.graph import Graph
from tasks.training.loop import Loop
from tasks.training.world import World
from tests.models import config, job
from tests.test_training import batch, same, settings, weights

EXPERTS = {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 4}
RECURRENT = {
    "model_type": "mamba2",
    "architectures": ["Mamba2ForCausalLM"],
    "num_heads": 4,
    "head_dim": 32,
    "n_groups": 1,
}


def gradients(model: Any) -> dict[str, Any]:
    """Of every weight of the model."""
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def backward(technique: Any, folder: Path, **changes: Any) -> tuple[Any, Any]:
    """Loss and gradients of a fresh model under an objective."""
    model = new_model(config(**changes), seed=0).train()
    graph = Graph(model, technique.begin(model, job(folder)))
    total, shown = graph(*batch(0), {})
    total.backward()
    return shown, gradients(model)


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, EXPERTS, RECURRENT], ids=str)
def test_without_weight_it_is_next_token_prediction(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Scaled by 0, the further tokens leave loss and gradient of every weight of the model as they are."""
    plain, reference = backward(NextToken(), tmp_path, **changes)
    shown, found = backward(MultiToken(mtp_num_layers=3, mtp_loss_scaling_factor=0.0), tmp_path, **changes)
    assert shown["loss"] == plain["loss"]
    assert same(reference, found)
    assert ("balance_loss" in shown) == ("balance_loss" in plain)


def test_the_weight_moves_the_model(tmp_path: Path) -> None:
    """With a weight the model's own gradient is another, and the modules have one."""
    _, reference = backward(NextToken(), tmp_path)
    _, found = backward(MultiToken(mtp_num_layers=2), tmp_path)
    assert not same(reference, found)


def depths_of(model: Any, count: int, factor: float = 0.5) -> MultiTokenLoss:
    """The objective on a model."""
    made = MultiToken(mtp_num_layers=count, mtp_loss_scaling_factor=factor).begin(model, Job("test", Path()))
    assert isinstance(made, MultiTokenLoss)
    return made


def by_hand(model: Any, objective: MultiTokenLoss, ids: Any, labels: Any) -> float:
    """Mean over depths of the sum of -log p over the number of labels, position by position, in plain loops."""
    import torch

    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    total = 0.0
    for row in range(len(ids)):
        for start in range(ids.shape[1]):
            state = hidden[row, start]
            for ahead, module in enumerate(objective.depths, 1):
                if start + ahead >= ids.shape[1]:
                    break
                state = module(state, embed(ids[row, start + ahead]))
                wanted = int(labels[row, start + ahead])
                if wanted != IGNORED:
                    total -= float(torch.log_softmax(head(module.norm(state)), -1)[wanted])
    return total / int((labels != IGNORED).sum()) / len(objective.depths)


def test_the_loss_is_that_of_a_loop_over_positions() -> None:
    """Position i, depth k: from the state of depth k - 1 and token i + k comes token i + k + 1; labels left out count nothing."""
    import torch

    model = new_model(config(), seed=0)
    objective = depths_of(model, 3)
    ids, labels = batch(1)
    ids, labels = ids[:, :7], labels[:, :7].clone()
    labels[0, 2] = labels[1, 4] = labels[1, 5] = IGNORED
    with torch.no_grad():
        found = objective.losses(model, ids, labels, {})
        expected = by_hand(model, objective, ids, labels)
    assert float(found.shown["multi_token_loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(found.total) == pytest.approx(float(found.shown["loss"]) + 0.5 * expected, rel=1e-5)


def test_nothing_is_predicted_across_documents() -> None:
    """Where a token sees its own document alone, no depth is asked for a token of the next document's inside."""
    import torch

    model = new_model(config(), seed=0)
    objective = depths_of(model, 1)
    ids, labels = batch(1)
    ids, labels = ids[:1, :8], labels[:1, :8]
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    apart = [(ids[:, :3], labels[:, :3]), (ids[:, 3:], labels[:, 3:])]
    with torch.no_grad():
        whole = objective.losses(model, ids, labels, {"documents": documents}).shown
        parts = [objective.losses(model, *part, {}).shown["multi_token_loss"] * part[0].shape[1] for part in apart]
    assert float(whole["multi_token_loss"]) == pytest.approx(float(sum(parts)) / 8, rel=1e-5)


def test_a_sequence_too_short_for_a_depth_has_only_the_others() -> None:
    """Two tokens, five depths: one depth has a label; every module still has a gradient or none, and no error."""
    model = new_model(config(), seed=0)
    ids, labels = batch(0)
    losses = depths_of(model, 5).losses(model, ids[:, :2], labels[:, :2], {})
    losses.total.backward()
    assert float(losses.shown["multi_token_loss"].detach()) > 0


def test_parts_of_a_batch_add_up_to_it() -> None:
    """Two parts of different numbers of labels give the gradient and the loss of the batch in one."""
    ids, labels = batch(0)
    labels = labels.clone()
    labels[0, 5:] = IGNORED
    found = []
    for parts in (1, 2):
        model = new_model(config(), seed=0).train()
        objective = depths_of(model, 2)
        chosen = settings(gradient_accumulation_steps=parts, max_grad_norm=1e9)
        trained = [p for _, p in Graph(model, objective).trained()]
        learned = Gradient(Graph(model, objective), trained, chosen, World()).compute(Batch(ids, labels))
        found.append((learned, gradients(model)))
    (whole, one), (split, other) = found
    assert split == pytest.approx(whole, rel=1e-4)
    assert all(value.allclose(other[name], atol=1e-5) for name, value in one.items())


@pytest.mark.parametrize("stopped_at", [1, 4, 8])
def test_modules_are_in_the_checkpoint(tmp_path: Path, stopped_at: int) -> None:
    """Stopped and started again: model and modules are those of an uninterrupted run, bit for bit."""
    chosen = settings(objective=MultiToken(mtp_num_layers=2, mtp_loss_scaling_factor=0.3))
    straight = Loop(new_model(config(), seed=0), batch, chosen, job(tmp_path / "straight"))
    straight.run()

    def interrupted(step: int) -> tuple[Any, Any]:
        if step == stopped_at:
            raise KeyboardInterrupt
        return batch(step)

    place = job(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        Loop(new_model(config(), seed=0), interrupted, chosen, place).run()
    resumed = Loop(new_model(config(), seed=0), batch, chosen, place)
    resumed.run()
    assert same(weights(straight.graph), weights(resumed.graph))
    assert any(name.startswith("beside.") for name in weights(straight.graph))


def test_modules_begin_the_same_whatever_ran_before() -> None:
    """New modules don't depend on how much chance was used up: every worker and attempt makes the same."""
    import torch

    model = new_model(config(), seed=0)
    one = depths_of(model, 2)
    torch.rand(17)
    assert same(weights(one.depths), weights(depths_of(model, 2).depths))
