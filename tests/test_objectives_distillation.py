"""Distillation: equal to known quantities at its ends, and the teacher asked once about a text, whatever happens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.accounting import forward_flops_per_token, training_flops_per_token
from tasks.core.errors import UserError
from tasks.models.device import autocast
from tasks.models.load import load_model, new_model
from tasks.objectives.distillation import IDS, LIKELY, Distillation, DistillationLoss, divergence
from tasks.objectives.next_token import NextToken
from tasks.objectives.parts.teacher import Teacher, with_rest
from tasks.training.batch import Batch
from tasks.training.gradient import Gradient
from tasks.training.graph import Graph
from tasks.training.loop import Loop
from tasks.training.world import World
from tests.models import config, job
from tests.test_training import LENGTH, batch, same, settings, weights

TEACHER = {"hidden_size": 96, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of another shape with the same vocabulary; far from uniform."""
    folder = tmp_path_factory.mktemp("teacher")
    model = new_model(config(**TEACHER), seed=3)
    for parameter in model.parameters():
        parameter.data *= 3
    model.save_pretrained(folder)
    return folder


def begun(teacher: Path, folder: Path, model: Any = None, **fields: Any) -> DistillationLoss:
    """The objective on a fresh model, or on one that is given."""
    made = Distillation(**fields).begin(model or new_model(config(), seed=0), job(folder), teacher)
    assert isinstance(made, DistillationLoss)
    return made


def computed(objective: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """What the history shows of a batch, and the gradient of every weight of a fresh model."""
    model = new_model(config(), seed=0).train()
    graph = Graph(model, objective)
    trained = [parameter for _, parameter in graph.trained()]
    shown = Gradient(graph, trained, settings(max_grad_norm=1e9), World(), objective=objective).compute(
        Batch.of(batch(0))
    )
    return shown, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("top_k", [None, 8])
def test_alpha_0_is_next_token_prediction(teacher: Path, tmp_path: Path, top_k: int | None) -> None:
    """With no weight on the teacher, loss and gradients are the next token's."""
    plain, reference = computed(NextToken().begin(None, job(tmp_path)))
    shown, found = computed(begun(teacher, tmp_path, alpha=0.0, top_k=top_k))
    assert shown["loss"] == pytest.approx(plain["loss"], rel=1e-6)
    assert all(value.allclose(found[name], rtol=1e-5, atol=1e-8) for name, value in reference.items())


@pytest.mark.parametrize("top_k", [None, 1, 50, 400])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_a_model_has_nothing_to_learn_from_itself(tmp_path: Path, top_k: int | None, temperature: float) -> None:
    """The teacher's own weights as student: no divergence, and no gradient where alpha is 1."""
    new_model(config(), seed=0).save_pretrained(tmp_path / "same")
    shown, found = computed(begun(tmp_path / "same", tmp_path, alpha=1.0, top_k=top_k, temperature=temperature))
    assert shown["distillation_loss"] == pytest.approx(0, abs=1e-6)
    assert shown["grad_norm"] < 1e-4
    assert max(float(value.abs().max()) for value in found.values()) < 1e-4


def test_the_divergence_is_that_of_scipy() -> None:
    """KL(teacher || student) of whole distributions, and of the likeliest k with the rest in one more outcome."""
    import torch
    from scipy.special import rel_entr, softmax

    torch.manual_seed(0)
    own, said = torch.randn(5, 30) * 3, torch.randn(5, 30) * 3
    p, q = softmax(said.numpy(), -1), softmax(own.numpy(), -1)
    assert float(divergence(own, said.log_softmax(-1))) == pytest.approx(rel_entr(p, q).sum(), rel=1e-5)
    order = (-said).argsort(-1)[:, :4]
    bins = [
        ([*chosen, 1 - sum(chosen)], [*other, 1 - sum(other)])
        for chosen, other in (([p[i, j] for j in row], [q[i, j] for j in row]) for i, row in enumerate(order.numpy()))
    ]
    expected = sum(float(rel_entr(a, b).sum()) for a, b in bins)
    likely = said.log_softmax(-1)
    found = divergence(own, with_rest(likely, likely.gather(-1, order), order), order)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    assert float(found) < rel_entr(p, q).sum()


def test_the_rest_keeps_its_digits() -> None:
    """Of a teacher that is all but certain, what is left is still a finite logarithm, and so is the student's gradient."""
    import torch

    logits = torch.tensor([[60.0, 0.0, -1.0]])
    top = logits.log_softmax(-1).topk(1, -1)
    rest = with_rest(logits.log_softmax(-1), top.values, top.indices)[0, -1]
    assert float(rest) == pytest.approx(-60 + float(torch.tensor([0.0, -1.0]).logsumexp(0)), rel=1e-5)
    own = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True)
    divergence(own, torch.tensor([[-0.7, -0.7]]), torch.tensor([[1]])).backward()
    assert bool(own.grad.isfinite().all())


def test_all_of_the_vocabulary_is_the_whole_distribution(teacher: Path, tmp_path: Path) -> None:
    """top_k as large as the vocabulary: the same divergence and gradients as without; fewer give less divergence."""
    whole, reference = computed(begun(teacher, tmp_path / "a", alpha=1.0, top_k=None))
    sparse, found = computed(begun(teacher, tmp_path / "b", alpha=1.0, top_k=400))
    less, _ = computed(begun(teacher, tmp_path / "c", alpha=1.0, top_k=20))
    assert sparse["distillation_loss"] == pytest.approx(whole["distillation_loss"], rel=1e-5)
    assert all(value.allclose(found[name], rtol=1e-3, atol=1e-7) for name, value in reference.items())
    assert 0 < less["distillation_loss"] < whole["distillation_loss"]


def test_a_teacher_keeps_to_its_own_arithmetic(teacher: Path, tmp_path: Path) -> None:
    """Its weights stay in the dtype they were saved in and get no gradient, and under autocast it says the same."""
    import torch

    load_model(teacher).bfloat16().save_pretrained(tmp_path / "bf16")
    made = Teacher(tmp_path / "bf16", 1.0)
    assert made.model.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in made.model.parameters())
    assert not made.model.training
    objective = begun(teacher, tmp_path / "work", top_k=5)
    with autocast("bf16"):
        said = objective.prepare(Batch.of(batch(0))).extras[LIKELY]
    reference = Teacher(teacher, 1.0).likeliest(batch(0)[0], 5)[0]
    assert said.equal(reference)


def test_a_teacher_sees_a_document_alone(teacher: Path) -> None:
    """What it says of the second document of a row is what it says of that document by itself."""
    import torch

    ids, made = batch(0)[0][:1], Teacher(teacher, 1.0)
    documents = torch.zeros_like(ids)
    documents[:, 10:] = 1
    (both,) = made.log_probabilities(ids, documents)
    (second,) = made.log_probabilities(ids[:, 10:])
    assert torch.allclose(both[:, 10:], second, atol=1e-4)


def epochs(step: int) -> Any:
    """Ten steps over four batches' rows, in other companies every time."""
    import torch

    inputs, labels = (torch.cat(parts) for parts in zip(*(batch(number) for number in range(4)), strict=True))
    chosen = torch.tensor([step % 8, (3 * step + 1 + step // 8) % 8])
    return inputs[chosen], labels[chosen]


def trained(teacher: Path, folder: Path, source: Any = batch, stop: int | None = None, **fields: Any) -> Any:
    """A finished run; `stop`: interrupted before that step and started again."""
    chosen = settings(objective=Distillation(**({"top_k": 8} | fields)), teacher=teacher)
    place = job(folder)

    def interrupted(step: int) -> Any:
        if step == stop:
            raise KeyboardInterrupt
        return source(step)

    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            Loop(new_model(config(), seed=0), interrupted, chosen, place).run()
    loop = Loop(new_model(config(), seed=0), source, chosen, place)
    loop.run()
    return loop


def test_remembered_is_what_was_said(teacher: Path, tmp_path: Path) -> None:
    """With and without a cache a run over the same text comes out bit for bit the same, also where the cache knows all."""
    kept = trained(teacher, tmp_path / "kept")
    asked = trained(teacher, tmp_path / "asked", max_cache_bytes=0)
    for checkpoint in (tmp_path / "kept" / "work").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    known = trained(teacher, tmp_path / "kept")
    assert [loop.objective.asked for loop in (kept, asked, known)] == [20, 20, 0]
    assert same(weights(kept.model), weights(asked.model))
    assert same(weights(kept.model), weights(known.model))


@pytest.mark.parametrize("stopped_at", [2, 5, 7])
@pytest.mark.parametrize("top_k", [8, None])
def test_resumed_equals_uninterrupted(teacher: Path, tmp_path: Path, stopped_at: int, top_k: int | None) -> None:
    """Stopped after any step, in any epoch: bit for bit the uninterrupted run, and no sequence asked about again."""
    straight = trained(teacher, tmp_path / "straight", epochs, top_k=top_k)
    resumed = trained(teacher, tmp_path / "killed", epochs, stop=stopped_at, top_k=top_k)
    assert same(weights(straight.model), weights(resumed.model))
    if top_k:
        assert straight.objective.asked == 8
        assert straight.objective.asked >= resumed.objective.asked
        assert len(resumed.objective.cache) == 8


def test_the_teacher_s_flops_count_when_it_runs(teacher: Path, tmp_path: Path) -> None:
    """Student's steps + sequences it was asked about x one forward pass, within 1 %; what is remembered is free."""
    student = 2 * LENGTH * training_flops_per_token(config(), LENGTH)
    forward = LENGTH * forward_flops_per_token(config(**TEACHER), LENGTH)
    for folder, source, fields, asked in (
        ("once", batch, {}, 20),
        ("epochs", epochs, {}, 8),
        ("forgotten", epochs, {"max_cache_bytes": 0}, 20),
        ("whole", epochs, {"top_k": None}, 20),
    ):
        flops = trained(teacher, tmp_path / folder, source, **fields).progress.flops
        assert flops == pytest.approx(10 * student + asked * forward, rel=0.01), folder


def test_what_would_pass_the_limit_is_asked_again(teacher: Path, tmp_path: Path) -> None:
    """Room for some sequences: they are kept, the limit holds, and the run comes out as with room for all."""
    limit = 3 * LENGTH * 4 * (9 + 8) + 1000
    tight = trained(teacher, tmp_path / "tight", epochs, max_cache_bytes=limit)
    roomy = trained(teacher, tmp_path / "roomy", epochs)
    assert same(weights(tight.model), weights(roomy.model))
    assert 0 < len(tight.objective.cache) < 8
    assert tight.objective.cache.size <= limit
    assert tight.objective.metrics()["teacher_cache_bytes"].value == tight.objective.cache.size
    files = (tmp_path / "tight" / "work" / "teacher" / "worker-0").iterdir()
    assert sum(path.stat().st_size for path in files) == tight.objective.cache.size


def test_a_vocabulary_of_another_size_is_refused(teacher: Path, tmp_path: Path) -> None:
    """Teacher and model that tell apart different numbers of tokens, a top_k beyond them, and no teacher at all."""
    with pytest.raises(UserError, match=r"pretrain\.teacher .*400 tokens, the model's 300"):
        begun(teacher, tmp_path, new_model(config(vocab_size=300), seed=0))
    with pytest.raises(UserError, match="top_k: found 500; the vocabulary has 400"):
        begun(teacher, tmp_path, top_k=500)
    with pytest.raises(UserError, match="there is no teacher"):
        Distillation().begin(new_model(config(), seed=0), job(tmp_path))


def test_a_rehearsal_has_the_shapes_of_the_performance(teacher: Path, tmp_path: Path) -> None:
    """FLOPs are counted on extras like the real ones, and the teacher isn't asked for them."""
    for top_k in (None, 8, 400):
        objective = begun(teacher, tmp_path / str(top_k), top_k=top_k)
        ids = batch(0)[0]
        rehearsed = objective.rehearsal(ids)
        assert objective.asked == 0
        prepared = objective.prepare(Batch.of(batch(0))).extras
        assert {name: (value.shape, value.dtype) for name, value in rehearsed.items()} == {
            name: (value.shape, value.dtype) for name, value in prepared.items()
        }
        assert set(prepared) == ({LIKELY} if top_k is None else {LIKELY, IDS})
