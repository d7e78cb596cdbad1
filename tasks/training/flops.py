"""FLOPs of training, counted from the operators that run.

`torch.utils.flop_counter` counts products of matrices, and is corrected here where it is wrong or blind: grouped products
(mixture of experts), the backward pass of grouped convolutions, triangular systems, scans spelled as a product that is
summed over, products with 4-bit weights, and attention that sees a window. tests/test_flops.py holds each correction against hand arithmetic.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

Shape = tuple[int, ...]

SHORT = 32
"""Tokens of a sequence that others are told from."""


class Counter:
    """FLOPs of everything that ran inside `counting`."""

    def __init__(self, mode: Any) -> None:
        self._mode = mode

    @property
    def total(self) -> float:
        """FLOPs so far; a multiply-add is two."""
        return float(self._mode.get_total_flops())


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the operators that run inside, forward and backward.

    Attention runs unfused meanwhile, and on no more keys than its window holds: torch's counter doesn't know the fused
    kernel of a CPU, and a mask hides keys from the result, not from the arithmetic. So only sizes are to be used of
    what is computed inside, never values.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    mode: Any = FlopCounterMode(display=False, custom_mapping=_corrections())
    with sdpa_kernel(SDPBackend.MATH), _windows(), torch.compiler.set_stance("force_eager"), mode:
        yield Counter(mode)


class Flops:
    """FLOPs of batches of any length, each length counted once, when it is first asked for.

    Nothing is interpolated: scans work on padded chunks and windows fill up, so costs are no polynomial of the length.

    Args:
        step: runs `step(length, labelled, sequences)`: forward and backward of that many sequences at once, each with as
            many labelled tokens, its first ones.
        ahead: labels that a position's logits may depend on behind its own: with several tokens predicted at once, a
            sequence's first labels cost less than those that follow.
        fixed: whether a pass does work that doesn't grow with its tokens.
    """

    def __init__(self, step: Callable[[int, int, int], None], ahead: int = 0, fixed: bool = False) -> None:
        self._step, self._ahead = step, ahead
        self._body = cache(self._count_body)
        self._head = cache(self._count_head)
        self._fixed = cache(self._count_fixed if fixed else lambda: 0.0)

    def of(self, sequences: int, length: int, labelled: int, passes: int = 1) -> float:
        """FLOPs of `sequences` of `length` tokens, of which `labelled` in all have a logit computed, in so many passes."""
        return passes * self._fixed() + sequences * self._body(length) + labelled * self._head()

    def of_documents(self, rows: list[list[int]], labelled: int, passes: int = 1) -> float:
        """FLOPs of rows of sequences that don't see each other, `rows` their lengths; only where attention alone mixes.

        Such a sequence costs a multiple of its length and one of its square, so two lengths tell of all: the hundreds
        that occur would take hundreds of passes.
        """
        half, whole = self._body(SHORT), self._body(2 * SHORT)
        square = (whole - 2 * half) / (2 * SHORT**2)
        each = half / SHORT - square * SHORT
        lengths = [length for row in rows for length in row]
        squares = square * sum(n * n for n in lengths)
        return passes * self._fixed() + each * sum(lengths) + squares + labelled * self._head()

    def _count_body(self, length: int) -> float:
        labelled = min(length, self._ahead + 1)
        return self._count(length, labelled) - labelled * self._head() - self._fixed()

    def _count_head(self) -> float:
        """A token's logits cost the same whatever the length, so the shortest sequence tells."""
        length = self._ahead + 2
        return self._count(length, length) - self._count(length, length - 1)

    def _count_fixed(self) -> float:
        """What a second sequence doesn't add."""
        length = self._ahead + 2
        return 2 * self._count(length, length) - self._count(length, length, sequences=2)

    def _count(self, length: int, labelled: int, sequences: int = 1) -> float:
        with counting() as counter:
            self._step(length, labelled, sequences)
        return counter.total


def _corrections() -> dict[Any, Any]:
    """Formulas by operator, as `FlopCounterMode(custom_mapping=...)` takes them."""
    import torch
    import transformers.integrations.moe  # noqa: F401 (defines the operator named below)

    aten = torch.ops.aten
    return {
        aten._grouped_mm: _grouped_product,
        aten.addmm_: _added_product,
        torch.ops.transformers.grouped_mm_fallback: _grouped_product,
        aten.convolution_backward: _convolution_backward,
        aten.linalg_solve_triangular: _triangular_system,
        **_summed_products(aten),
        **_quantized_products(),
    }


def _quantized_products() -> dict[Any, Any]:
    """The product with 4-bit weights (arXiv:2305.14314), which is one operator; other widths are multiplied by torch's."""
    import torch

    if "bitsandbytes" not in sys.modules:
        return {}
    return {torch.ops.bitsandbytes.gemm_4bit: lambda left, _, shape, *__, **___: 2 * prod(left) * shape[0]}


def _grouped_product(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Every row of a three-dimensional operand's groups meets one matrix only, whatever the groups' sizes."""
    if len(left) == 3 and len(right) == 2:
        return 2 * prod(left[1:]) * right[-1]
    return 2 * prod(left) * right[-1]


def _added_product(_: Shape, left: Shape, right: Shape, **__: Any) -> int:
    """A product added to what is there, in its place: torch's counter knows only the one that makes a new tensor."""
    return 2 * prod(left) * right[-1]


def _triangular_system(matrix: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Size squared FLOPs per right-hand side: half a product with the full matrix (LAPACK Working Note 41)."""
    return int(prod(right)) * matrix[-1]


def _convolution_backward(
    gradient: Shape, inputs: Shape, weight: Shape, *rest: Any, output_mask: Any = None, **_: Any
) -> int:
    """Each of the two gradients takes the multiply-adds of the forward pass; `weight` has one group's channels already.

    torch's own formula multiplies the channels of all groups with each other.
    """
    transposed, mask = rest[4], output_mask or rest[7]
    places = (inputs if transposed else gradient)[2:]
    return int(mask[0] + mask[1]) * 2 * inputs[0] * prod(places) * prod(weight)


def _summed_products(aten: Any) -> dict[Any, Any]:
    """The rule that a product which is summed over is a multiply-add: einsums spelled with `*` and `sum`.

    Products are remembered by weak references, which end with the tensor: an address that is used again is no product.
    """
    from torch.utils.weak import WeakTensorKeyDictionary

    products: Any = WeakTensorKeyDictionary()

    def multiply(left: Any, right: Any, *_: Any, out_val: Any, **__: Any) -> int:
        if out_val.is_floating_point() and all(hasattr(one, "numel") and one.numel() > 1 for one in (left, right)):
            products[out_val] = True
        return 0

    def add_up(summed: Any, *_: Any, out_val: Any, **__: Any) -> int:
        return 2 * int(summed.numel()) if out_val.numel() < summed.numel() and summed in products else 0

    for formula in (multiply, add_up):
        formula.__dict__["_get_raw"] = True  # torch's way to ask for tensors instead of shapes
    return {aten.mul: multiply, aten.sum: add_up}


@contextmanager
def _windows() -> Iterator[None]:
    """Attention without a mask, on the last keys that fit the window, in every model of transformers."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as REGISTRY

    replaced = [name for name in REGISTRY if name != "eager" and not name.startswith("paged")]
    local = {name: REGISTRY._local_mapping[name] for name in replaced if name in REGISTRY._local_mapping}
    for name in replaced:
        REGISTRY[name] = _attend
    try:
        yield
    finally:
        for name in replaced:
            if name in local:
                REGISTRY[name] = local[name]
            else:
                del REGISTRY[name]


def _attend(
    _module: Any,
    query: Any,
    key: Any,
    value: Any,
    _mask: Any = None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Any, None]:
    from torch.nn.functional import scaled_dot_product_attention

    if sliding_window:
        key, value = key[:, :, -sliding_window:], value[:, :, -sliding_window:]
    grouped = query.shape[1] != key.shape[1]
    seen = scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling, enable_gqa=grouped)
    return seen.transpose(1, 2).contiguous(), None
