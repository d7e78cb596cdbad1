"""Precisions: scaled losses survive overflow and resumption, stochastic rounding keeps small updates, parts add up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import Diverged, UserError
from tasks.core.schema import validate
from tasks.design.llama import Llama
from tasks.ledger.predict import plan
from tasks.models.device import native_fp8, products, resolve_precision
from tasks.models.load import new_model
from tasks.params import Params, override
from tasks.training.batch import Batch
from tasks.training.gradient import Gradient
from tasks.training.graph import Graph
from tasks.training.loop import Loop
from tasks.training.precision import FIRST_SCALE, GROW_AFTER, LossScale, rounded
from tasks.training.world import World
from tests.models import MACHINE, config, job
from tests.test_training import batch, settings


def loop(folder: Path, **changes: Any) -> Loop:
    """Of a tiny Llama."""
    return Loop(new_model(config(), 0), batch, settings(**changes), job(folder))


def test_rounding_is_right_on_average() -> None:
    """A value between two neighbours becomes one of them, their mean the value; what bfloat16 holds stays."""
    import torch

    torch.manual_seed(0)
    made = rounded(torch.full((100_000,), 1 + 1 / 1024)).float()
    assert set(made.tolist()) == {1.0, 1 + 1 / 128}
    assert float(made.mean()) == pytest.approx(1 + 1 / 1024, abs=5e-5)
    exact = torch.tensor([0.0, -1.5, 3e38]).bfloat16()
    assert rounded(exact.float()).equal(exact)


@pytest.mark.slow
def test_pure_bf16_takes_eight_bytes_per_parameter(tmp_path: Path) -> None:
    """Weights and both moments are bfloat16 after steps that learn; the moments weigh 4 bytes per parameter."""
    import torch

    made = loop(tmp_path, precision="bf16_pure", steps=3)
    before = [p.detach().clone() for _, p in made.graph.trained()]
    metrics = made.run()
    after = [p for _, p in made.graph.trained()]
    assert all(p.dtype == torch.bfloat16 for p in after)
    assert not any(p.equal(old) for p, old in zip(after, before, strict=True) if p.dim() > 1)
    size = sum(p.numel() for p in after)
    assert metrics["optimizer_bytes"].value == 4 * size + 4 * len(after)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16_pure"])
def test_what_a_precision_keeps_is_predicted(tmp_path: Path, precision: str) -> None:
    """The bytes of optimizer state and checkpoint that a real run of the same model leaves, within a thousandth."""
    sizes = {f"design.llama.{name}": size for name, size in config().items() if name in Llama.model_fields}
    asked = {"data.tokenizer.train.vocab_size": config()["vocab_size"], "pretrain.precision": precision}
    asked |= {"data.source": str(Path(__file__).parents[1] / "data" / "stdlib.yaml")}
    params = validate(Params, override(Params().model_dump(mode="json"), sizes | asked))
    predicted = plan(params, MACHINE)["pretrain"]
    made = loop(tmp_path, precision=precision, steps=3, checkpoint_every=3)
    state = float(made.run()["optimizer_bytes"].value or 0)
    assert predicted["optimizer_bytes"].value == pytest.approx(state, rel=1e-3)
    weights = sum(p.numel() * p.element_size() for _, p in made.graph.trained())
    assert predicted["checkpoint_bytes"].value == pytest.approx(weights + state, rel=1e-3)
    (kept,) = tmp_path.glob("**/checkpoint-00000003")
    files = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
    assert files == pytest.approx(predicted["checkpoint_bytes"].value, rel=0.1)


@pytest.mark.slow
def test_pure_bf16_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Stopped between checkpoints and started again: the weights of an uninterrupted run."""
    straight = loop(tmp_path / "a", precision="bf16_pure")
    straight.run()

    def stops(step: int) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return batch(step)

    for source, end in ((stops, KeyboardInterrupt), (batch, None)):
        made = Loop(new_model(config(), 0), source, settings(precision="bf16_pure"), job(tmp_path / "b"))
        if end:
            with pytest.raises(end):
                made.run()
        else:
            made.run()
    assert all(
        one.equal(other) for (_, one), (_, other) in zip(straight.graph.trained(), made.graph.trained(), strict=True)
    )


def test_scale_halves_and_doubles() -> None:
    """Halved by overflow, doubled after so many quiet steps, and what was saved goes on."""
    scale = LossScale()
    scale.update(True)
    assert scale.scale == FIRST_SCALE / 2
    for _ in range(GROW_AFTER - 1):
        scale.update(False)
    other = LossScale()
    other.load(scale.state())
    other.update(False)
    assert other.scale == FIRST_SCALE


def test_fp16_gradient_is_unscaled_before_it_is_clipped(tmp_path: Path) -> None:
    """The norm is that of float32 within half precision's rounding, whatever the scale."""
    norms = {
        way: loop(tmp_path / way, precision=way).gradient.compute(Batch.of(batch(0)))["grad_norm"]
        for way in ("fp32", "fp16")
    }
    assert norms["fp16"] == pytest.approx(norms["fp32"], rel=0.02)


def test_an_overflow_skips_the_step(tmp_path: Path) -> None:
    """With a scale half precision can't hold nothing is updated, and the scale falls until steps are taken again."""
    made = loop(tmp_path, precision="fp16", steps=1)
    made.gradient.load({"loss_scale": 2.0**40, "quiet_steps": 0.0, "overflowed_steps": 2.0})
    before = [p.detach().clone() for _, p in made.graph.trained()]
    metrics = made.run()
    assert all(p.equal(old) for (_, p), old in zip(made.graph.trained(), before, strict=True))
    assert made.gradient.state() == {"loss_scale": 2.0**39, "quiet_steps": 0.0, "overflowed_steps": 3.0}
    assert metrics["overflowed_steps"].value == 3


def test_a_gradient_that_is_no_number_is_no_overflow(tmp_path: Path) -> None:
    """Once the scale is 1 and the gradient still isn't a number, the run is stopped as in float32, instead of doing nothing."""
    made = loop(tmp_path, precision="fp16", steps=60)
    made.graph.trained()[0][1].register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(Diverged, match="is not a number"):
        made.run()


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_parts_add_up_to_the_whole(parts: int, tmp_path: Path) -> None:
    """Gradient, norm and loss of a batch whose rows have unequal numbers of labels, in any number of parts."""
    import torch

    ids = torch.randint(0, 400, (5, 16), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    for row in range(5):
        labels[row, 3 * row + 1 :] = -100
    found = []
    for count in (1, parts):
        model = new_model(config(), 0).train()
        chosen = settings(gradient_accumulation_steps=count)
        graph = Graph(model, chosen.objective.begin(model, job(tmp_path)))
        trained = [p for _, p in graph.trained()]
        found.append((Gradient(graph, trained, chosen, World()).compute(Batch(ids, labels)), trained))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_more_parts_than_sequences_are_refused(tmp_path: Path) -> None:
    """Two sequences can't be cut into three parts."""
    with pytest.raises(UserError, match="gradient_accumulation_steps: found 3"):
        loop(tmp_path, gradient_accumulation_steps=3).run()


def test_fp8_says_what_it_needs() -> None:
    """Without the hardware a sentence, not a traceback; utilisation is measured against the type of the products."""
    if not native_fp8():
        with pytest.raises(UserError, match="compute capability"):
            resolve_precision("fp8")
    assert [products(way) for way in ("fp32", "bf16", "bf16_pure", "fp16")] == [
        "float32",
        "bfloat16",
        "bfloat16",
        "float16",
    ]
