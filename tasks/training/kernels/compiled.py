"""Compiled blocks: one decoder block is compiled, and every block of the same kind runs what came out."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.accounting import Anatomy
from tasks.accounting.attention import Attention
from tasks.core.errors import UserError

COMPILE_SECONDS = 45.0
"""What compiling a block's forward and backward pass took on two cores (torch 2.13, GCC): once a run."""

SAVED = {"bfloat16": 0.3, "float32": 0.07}
"""Share of a step that compiled blocks save on a CPU, by type of the products: the faster these are, the more the rest weighs."""

WORTH = 2.0
"""Compiling is to save this many times what it takes: the share above is no law."""


def pays(anatomy: Anatomy, seconds: float, dtype: str) -> bool:
    """Whether `pretrain.compile: auto` compiles, decided from figures that are the same in every attempt at a run.

    Blocks of attention and dense layers only: recurrences unroll into code that compiles for minutes, experts into shapes
    that change with every batch.

    Args:
        anatomy: of the model.
        seconds: the run's matrix products take at the machine's measured rate.
        dtype: of the products.
    """
    dense = all(matrix.copies == 1 for block in anatomy.blocks for matrix in block.matrices)
    attention = all(isinstance(part, Attention) for block in anatomy.blocks for part in block.mixings)
    return dense and attention and seconds * SAVED.get(dtype, 0.0) > WORTH * COMPILE_SECONDS


def check_compiler(name: str) -> None:
    """Refuse to compile where nothing can.

    Raises:
        UserError: there is no C++ compiler; names the parameter.
    """
    import torch

    if not torch.cuda.is_available() and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        raise UserError(
            f"{name}: found on; there is no C++ compiler (g++) to compile with", "install one, or set it to off"
        )


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Run the model's blocks compiled inside; afterwards they are as they were."""
    blocks = list(blocks_of(model))
    for block in blocks:
        block.compile(dynamic=False)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="The .grad attribute of a Tensor"
            )  # dynamo looks at what comes in
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def blocks_of(model: Any) -> Any:
    """The decoder's blocks: a ModuleList named `layers` or `blocks` in every architecture of transformers."""
    from tasks.training.loss import causal_of

    decoder = causal_of(model).get_decoder()
    found = getattr(decoder, "layers", None)
    return decoder.blocks if found is None else found
