"""The counter of FLOPs where torch's own is wrong or blind: each correction against hand arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.models.load import new_model
from tasks.training.flops import counting
from tests.models import config


def uncorrected(step: Callable[[], Any]) -> float:
    """What torch's counter says by itself, attention unfused."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    mode: Any = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), mode:
        step()
    return float(mode.get_total_flops())


def corrected(step: Callable[[], Any]) -> float:
    """What ours says."""
    with counting() as counter:
        step()
    return counter.total


def leaf(*shape: int) -> Any:
    """A random tensor that wants its gradient."""
    import torch

    return torch.randn(*shape, requires_grad=True)


ROWS, INPUTS, OUTPUTS, GROUPS = 10, 16, 24, 3
PRODUCT = 2 * ROWS * INPUTS * OUTPUTS


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("fallback", [False, True], ids=["torch", "transformers"])
def test_grouped_products_count_every_row_once(transposed: bool, fallback: bool) -> None:
    """2 x rows x in x out forward, as much for either gradient, whatever the groups' sizes, one of them empty."""
    import torch
    import transformers.integrations.moe  # noqa: F401

    weight = leaf(GROUPS, OUTPUTS, INPUTS) if transposed else leaf(GROUPS, INPUTS, OUTPUTS)
    ends = torch.tensor([4, 4, ROWS], dtype=torch.int32)
    inputs = leaf(ROWS, INPUTS)

    def forward() -> Any:
        matrices = weight.transpose(1, 2) if transposed else weight
        if fallback:
            return torch.ops.transformers.grouped_mm_fallback(inputs, matrices, ends)
        return torch.nn.functional.grouped_mm(inputs, matrices, offs=ends)

    def both() -> None:
        forward().square().mean().backward()

    assert corrected(forward) == PRODUCT
    assert corrected(both) == 3 * PRODUCT
    assert uncorrected(forward) == 0
    assert uncorrected(both) < 3 * PRODUCT


def test_frozen_experts_have_no_weight_gradient() -> None:
    """With the experts frozen, the backward pass is the input's gradient alone."""
    import torch

    inputs, weight = leaf(ROWS, INPUTS), leaf(GROUPS, INPUTS, OUTPUTS).detach()
    ends = torch.tensor([4, 4, ROWS], dtype=torch.int32)
    assert (
        corrected(lambda: torch.nn.functional.grouped_mm(inputs, weight, offs=ends).square().mean().backward())
        == 2 * PRODUCT
    )


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_backward_of_a_grouped_convolution_is_twice_its_forward(groups: int) -> None:
    """torch multiplies the channels of all groups in the weight's gradient; one group needs its own alone."""
    import torch

    channels, length, kernel, batch = 8, 20, 4, 2
    inputs, weight = leaf(batch, channels, length), leaf(channels, channels // groups, kernel)

    def forward() -> Any:
        return torch.nn.functional.conv1d(inputs, weight, padding=kernel - 1, groups=groups)

    def both() -> None:
        forward().square().mean().backward()

    once = 2 * batch * (length + kernel - 1) * kernel * channels * channels // groups
    assert corrected(forward) == once == uncorrected(forward)
    assert corrected(both) == 3 * once
    if groups == 1:
        assert uncorrected(both) == 3 * once
    else:
        assert uncorrected(both) > 3 * once


def test_a_product_summed_over_is_a_multiply_add() -> None:
    """An einsum costs what it costs, spelled with `*` and `sum` or with a product of matrices, both ways."""
    left, right = leaf(6, 5), leaf(5, 7)

    def spelled() -> None:
        (left[:, :, None] * right[None]).sum(1).square().mean().backward()

    def matrix() -> None:
        (left @ right).square().mean().backward()

    assert corrected(spelled) == 3 * 2 * 6 * 5 * 7 == corrected(matrix) == uncorrected(matrix)
    assert uncorrected(spelled) == 0


def test_triangular_systems_are_half_a_product() -> None:
    """Size squared FLOPs per right-hand side; its gradient is one more, and the matrix's is a product."""
    import torch

    size, sides, batch = 16, 5, 3
    matrix, right = leaf(batch, size, size), leaf(batch, size, sides)

    def forward() -> Any:
        return torch.linalg.solve_triangular(matrix, right, upper=False, unitriangular=True)

    once = batch * size**2 * sides
    assert corrected(forward) == once
    assert corrected(lambda: forward().square().mean().backward()) == 4 * once
    assert uncorrected(forward) == 0


def test_what_is_no_contraction_is_not_counted() -> None:
    """Sums of sums, products that aren't summed, sums over nothing, scalings and integers count nothing."""
    import torch

    one, two = torch.ones(4, 5), torch.ones(4, 5)
    whole = torch.ones(4, 5, dtype=torch.long)

    def step() -> None:
        (one + two).sum(1)
        one * two
        (one * two)[..., None].sum(-1)
        (one[..., None] * two[..., None]).sum(-1)
        (one * 3.0).sum(1)
        (whole * whole).sum(1)

    assert corrected(step) == 0


def test_a_tensor_at_the_address_of_a_forgotten_product_is_none() -> None:
    """Products are made and dropped, and sums made of other tensors of the same size, which take their places."""
    import torch

    one = torch.ones(64, 64)

    def step() -> None:
        for _ in range(50):
            product = one * one
            del product
            other = one + one
            other.sum(1)
            del other

    assert corrected(step) == 0


WINDOWED = {
    "model_type": "mistral",
    "architectures": ["MistralForCausalLM"],
    "head_dim": 32,
    "num_hidden_layers": 2,
}


@pytest.mark.parametrize(("length", "window"), [(48, 16), (12, 16), (48, None)])
def test_attention_counts_the_window(length: int, window: int | None) -> None:
    """Scores and their use are products with min(T, window) keys: 2 x 2 x T x W x width forward, thrice that trained."""
    import torch

    model = new_model(config(**WINDOWED, sliding_window=window), seed=0).train()
    ids = torch.arange(length)[None]

    def step() -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()

    seen, queries = min(length, window or length), 2 * 32
    weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2)
    expected = 3 * (2 * length * weights + 2 * 2 * 2 * queries * length * seen)
    assert corrected(step) == pytest.approx(expected, rel=0.005)
    if seen < length:
        assert uncorrected(step) > 1.02 * expected


def test_a_product_added_in_place_is_counted() -> None:
    """What torch's own counter doesn't see: a product summed into a tensor that is there."""
    import torch

    into, left, right = torch.zeros(3, 5), torch.ones(3, 4), torch.ones(4, 5)
    assert corrected(lambda: into.addmm_(left, right)) == 2 * 3 * 4 * 5
    assert uncorrected(lambda: into.addmm_(left, right)) == 0


def test_attention_is_put_back() -> None:
    """After counting, also after an error inside, models attend as before."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = dict(ALL_ATTENTION_FUNCTIONS)
    with counting():
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not before["sdpa"]
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
    with pytest.raises(ValueError, match="inside"), counting():
        int("inside")
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_experts_of_a_model_are_counted() -> None:
    """Mixtral: every token passes the router, two experts of three matrices, and everything a dense model has."""
    import torch

    shape = config(
        model_type="mixtral", architectures=["MixtralForCausalLM"], num_local_experts=4, num_experts_per_tok=2
    )
    model, length = new_model(shape, seed=0).train(), 32
    ids = torch.arange(length)[None]

    def step() -> None:
        causal = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        model.get_output_embeddings()(causal).square().mean().backward()

    dense = 2 * (64 * (64 + 32 + 32 + 64) + 4 * 64) + 400 * 64
    experts = 2 * 2 * 3 * 64 * 128
    attention = 2 * 2 * 2 * 64 * length * length
    expected = 3 * (2 * length * (dense + experts) + attention)
    assert corrected(step) == pytest.approx(expected, rel=0.005)
    assert uncorrected(step) < 0.7 * expected
