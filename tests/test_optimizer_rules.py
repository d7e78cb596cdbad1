"""Optimizers beside their papers' formulas, torch's own, or AdamW."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tasks.compatibility import problems
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.optimizers.adam_mini import AdamMini
from tasks.optimizers.adamw import AdamW
from tasks.optimizers.adamw_4bit import AdamW4bit
from tasks.optimizers.adamw_8bit import AdamW8bit
from tasks.optimizers.apollo import Apollo
from tasks.optimizers.galore import GaLore
from tasks.optimizers.lion import Lion
from tasks.optimizers.lomo import Lomo
from tasks.optimizers.muon import Muon, orthogonal
from tasks.optimizers.schedule_free import ScheduleFree
from tasks.optimizers.sgd import Sgd
from tasks.optimizers.shared.blockwise import dynamic_table
from tasks.params import Params, override
from tasks.pretrain.run import run
from tests.models import config
from tests.test_optimizers import move, noise, tensors

SHAPES = [(50, 20), (20, 30), (30, 20), (20,)]
"""An embedding, two matrices of a block, a vector."""
RATE, DECAY = 0.01, 0.1


def after(optimizer: Any, named: list[tuple[str, Any]], steps: int = 5) -> list[Any]:
    """Parameters after some steps on the same noise."""
    for step in range(steps):
        move(optimizer, named, noise(named, step))
    return [p.detach() for _, p in named]


def made(technique: Any, steps: int = 5) -> list[Any]:
    """Parameters a technique arrives at."""
    named = tensors(SHAPES)
    return after(technique.build(named, RATE, DECAY), named, steps)


def close(one: list[Any], other: list[Any]) -> bool:
    """But for rounding."""
    return all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


def test_without_projection_galore_is_adamw() -> None:
    """A rank that no matrix is above leaves AdamW."""
    assert close(made(GaLore(rank=20)), made(AdamW()))


def test_galore_moves_in_the_gradients_subspace() -> None:
    """A step is Adam's in the basis of the gradient's first singular vectors, scaled."""
    named = tensors(SHAPES)
    before, gradient = named[1][1].detach().clone(), noise(named, 0)[1]
    move(GaLore(rank=3, scale=0.5).build(named, RATE, 0.0), named, noise(named, 0))
    basis = torch.linalg.svd(gradient).U[:, :3]
    expected = before - RATE * 0.5 * basis @ (basis.T @ gradient).sign()
    assert torch.allclose(named[1][1].detach(), expected, atol=1e-4)


@pytest.mark.parametrize("scale_type", ["channel", "tensor"])
def test_apollo_scales_the_gradient(scale_type: str) -> None:
    """A first step is the gradient, every column (or all) times the ratio of Adam's projected step to its projection."""
    named = tensors(SHAPES)
    before, gradient = named[1][1].detach().clone(), noise(named, 0)[1]
    rank = 3
    move(Apollo(rank=rank, scale=4.0, scale_type=scale_type).build(named, RATE, 0.0), named, noise(named, 0))
    low = torch.randn(rank, 20, generator=torch.Generator().manual_seed(1)) / rank**0.5 @ gradient
    over = 0 if scale_type == "channel" else (0, 1)
    factor = low.sign().norm(dim=over, keepdim=True) / low.norm(dim=over, keepdim=True)
    assert torch.allclose(named[1][1].detach(), before - RATE * 2 * gradient * factor, atol=1e-4)


def test_apollo_steps_grow_slowly() -> None:
    """A gradient a hundred times the last leads to a step of at most 1.01 times the last one's norm."""
    named = tensors([(9, 9), (20, 30)])
    optimizer = Apollo(rank=3, scale_type="tensor").build(named, RATE, 0.0)
    sizes, value = [], named[1][1]
    for factor in (1.0, 100.0):
        start = value.detach().clone()
        move(optimizer, named, [factor * g for g in noise(named, 0)])
        sizes.append(float((value.detach() - start).norm()))
    assert sizes[1] <= sizes[0] * 1.0101


def test_lion_is_its_papers() -> None:
    """Algorithm 2, written out."""
    named = tensors(SHAPES)
    expected, average = named[1][1].detach().clone(), torch.zeros(20, 30)
    for step in range(4):
        gradient = noise(named, step)[1]
        sign = (0.9 * average + 0.1 * gradient).sign()
        expected -= RATE * (sign + DECAY * expected)
        average = 0.99 * average + 0.01 * gradient
    assert torch.allclose(made(Lion(), 4)[1], expected, atol=1e-5)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov: bool) -> None:
    """Without weight decay, which torch couples, the same steps."""
    mine, named = tensors(SHAPES), tensors(SHAPES)
    reference = torch.optim.SGD([p for _, p in named], lr=RATE, momentum=0.9, nesterov=nesterov)
    assert close(after(Sgd(nesterov=nesterov).build(mine, RATE, 0.0), mine), after(reference, named))


def test_muon_is_torchs_for_matrices_of_blocks_and_adamw_for_the_rest() -> None:
    """torch's iterates in bfloat16, so its steps are met within 3 %; embeddings and vectors move as under AdamW."""
    found, named = made(Muon()), tensors(SHAPES)
    start = [p.detach().clone() for _, p in named]
    group = [p for _, p in named[1:3]]
    theirs = torch.optim.Muon(group, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    reference = after(theirs, named)
    for at in (1, 2):
        assert (found[at] - reference[at]).norm() < 0.03 * (reference[at] - start[at]).norm()
    adam = made(AdamW())
    assert close([found[0], found[3]], [adam[0], adam[3]])


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (2, 16, 40)])
def test_orthogonal_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    """All between 0.5 and 1.3, whatever they were; stacks are taken one by one."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix, 5))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_schedule_free_is_its_papers() -> None:
    """Equations 5 to 8 with AdamW's scaling, written out with all three points: the learning one and the average."""
    fields, named = ScheduleFree(), tensors(SHAPES)
    optimizer = fields.build(named, RATE, DECAY)
    z = named[1][1].detach().double().clone()
    x, second, weights = z.clone(), torch.zeros_like(z), 0.0
    for step in range(1, 6):
        gradient = noise(named, step - 1)[1].double()
        y = (1 - fields.beta1) * z + fields.beta1 * x
        assert torch.allclose(named[1][1].detach().double(), y, atol=1e-5)
        move(optimizer, named, noise(named, step - 1))
        second = fields.beta2 * second + (1 - fields.beta2) * gradient**2
        z = z - RATE * (gradient / ((second / (1 - fields.beta2**step)).sqrt() + fields.eps) + DECAY * y)
        weights += RATE**2
        share = RATE**2 / weights
        x = (1 - share) * x + share * z
    learning = named[1][1].detach().clone()
    optimizer.eval()
    assert torch.allclose(named[1][1].detach().double(), x, atol=1e-4)
    optimizer.train()
    assert named[1][1].equal(learning)


def test_adam_mini_is_adamw_where_rows_are_even() -> None:
    """Gradients of one magnitude per row have the row's mean square."""
    ends = []
    for technique in (AdamMini(), AdamW()):
        named = tensors([(8, 6)])
        optimizer = technique.build(named, RATE, DECAY)
        for step in range(4):
            rows = torch.rand(8, 1, generator=torch.Generator().manual_seed(step))
            signs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step + 9)).sign()
            move(optimizer, named, [rows * signs])
        ends.append(named[0][1].detach())
    assert torch.allclose(*ends, atol=1e-5)


@pytest.mark.parametrize(("kind", "bound"), [(AdamW8bit, 0.03), (AdamW4bit, 0.3)])
def test_few_bits_stay_close_to_adamw(kind: Any, bound: float) -> None:
    """After ten noisy steps the way gone differs from AdamW's by less than 3 % (8 bits), 30 % (4 bits)."""
    start = [p.detach() for _, p in tensors(SHAPES)]
    for exact, rounded, begin in zip(made(AdamW(), 10), made(kind(min_quantized=1), 10), start, strict=True):
        assert (rounded - exact).norm() < bound * (exact - begin).norm()


def test_dynamic_codes() -> None:
    """256 and 16 values, zero and one among them, dense near zero; signed ones are symmetric but for one."""
    for bits in (4, 8):
        for signed in (True, False):
            table = dynamic_table(bits, signed, "cpu")
            assert len(set(table.tolist())) == 2**bits
            assert {0.0, 1.0} <= set(table.tolist())
            assert (table.min() < 0) == signed


def test_lomo_moves_in_the_backward_pass_and_drops_gradients() -> None:
    """Inside `moving` tensors move by clipped gradients that don't survive; outside they stay, gradients too."""
    named = tensors([(4, 4), (4, 4)])
    optimizer = Lomo().build(named, 0.5, 0.0)
    (_, one), (_, two) = named
    starts = [one.detach().clone(), two.detach().clone()]
    with optimizer.moving(2.0):
        (one.sum() + 0.1 * two.sum()).backward()
    assert one.grad is None
    assert two.grad is None
    assert optimizer.grad_norm == pytest.approx((16 + 0.16) ** 0.5)
    assert torch.allclose(one.detach(), starts[0] - 0.5 * 0.5)  # a norm of 4 is limited to 2
    assert torch.allclose(two.detach(), starts[1] - 0.5 * 0.1)
    one.sum().backward()
    assert one.grad is not None
    assert torch.allclose(one.detach(), starts[0] - 0.25)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        ({"method": "mezo", "gradient_checkpointing": "full"}, "pretrain.gradient_checkpointing: found full"),
        ({"method": "mezo", "parallel.nproc_per_node": 2}, "pretrain.parallel.nproc_per_node: found 2"),
        ({"method": "mezo", "precision": "fp16"}, "pretrain.precision: found fp16"),
        ({"method": "mezo", "precision": "bf16_pure"}, "pretrain.precision: found bf16_pure"),
        ({"method": "schedule_free"}, "pretrain.schedule.shape: found cosine"),
        ({"method": "lomo", "gradient_accumulation_steps": 2}, "pretrain.gradient_accumulation_steps: found 2"),
        ({"method": "lomo", "parallel.nproc_per_node": 2}, "pretrain.parallel.nproc_per_node: found 2"),
        ({"method": "lomo", "precision": "fp16"}, "pretrain.precision: found fp16"),
    ],
)
def test_what_excludes_each_other_is_refused_early_and_by_the_stage(assignments: dict[str, Any], said: str) -> None:
    """Both before anything runs and in the stage itself, by the parameter's path."""
    names = {"method": "optimizer.method"}
    values = {f"pretrain.{names.get(name, name)}": value for name, value in assignments.items()}
    params = validate(Params, override(Params().model_dump(mode="json"), values))
    assert any(said in line for line in problems(params, config()))
    nothing: Any = None
    with pytest.raises(UserError, match=said):
        run(
            params.pretrain,
            seed=0,
            evaluate=nothing,
            data=nothing,
            design=nothing,
            init=nothing,
            out=nothing,
            job=nothing,
        )
