"""Compiled blocks: one decoder block is compiled, and every block of the same kind runs what came out."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tasks.core.errors import UserError
from tasks.training.recompute import blocks_of

COMPILE_SECONDS = 45.0
"""What compiling a block's forward and backward pass took on two cores (torch 2.13, GCC): once a run."""

SAVED = {"bfloat16": 0.3, "float32": 0.07}
"""Share of a step that compiled blocks save on a CPU, by type of the products: the faster these are, the more the rest weighs."""

WORTH = 2.0
"""Compiling is to save this many times what it takes: the share above is no law."""


DENSE = frozenset({"llama", "mistral", "olmo3", "qwen2", "qwen3", "smollm3"})
"""Architectures of attention and dense layers. Recurrences unroll into code that compiles for minutes, experts into
shapes that change with every batch."""


def pays(architecture: str, flops: float, rates: Mapping[str, float], dtype: str) -> bool:
    """Whether `pretrain.compile: auto` compiles, from figures that are the same in every attempt at a run.

    Args:
        architecture: `model_type` of the config.
        flops: of the run, roughly: 6 x parameters x tokens.
        rates: the machine's measured rate of matrix products by dtype, FLOP/s.
        dtype: of the products, "float32" or "bfloat16".
    """
    if architecture not in DENSE or not rates.get(dtype):
        return False
    return flops / rates[dtype] * SAVED.get(dtype, 0.0) > WORTH * COMPILE_SECONDS


def check_compiler(name: str) -> None:
    """Refuse to compile where nothing can.

    Raises:
        UserError: there is no C++ compiler; names the parameter.
    """
    if not has_compiler():
        raise UserError(
            f"{name}: found on; there is no C++ compiler (g++) to compile with", "install one, or set it to off"
        )


def has_compiler() -> bool:
    """Whether torch.compile finds what it needs: a C++ compiler on a CPU; for CUDA it brings its own."""
    import torch

    return torch.cuda.is_available() or any(map(shutil.which, ("g++", "c++", "clang++")))


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Run the model's blocks compiled inside; afterwards they are as they were."""
    blocks = blocks_of(model)
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
