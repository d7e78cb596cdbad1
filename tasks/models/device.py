"""Where and in which arithmetic a model runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext


def best_device() -> str:
    """`cuda` where there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def native_bf16() -> bool:
    """Whether the machine multiplies bfloat16 in hardware (CUDA capability 8.0, AMX or AVX512-BF16)."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def resolve_precision(precision: str) -> str:
    """`fp32` or `bf16` for `auto | fp32 | bf16`."""
    if precision != "auto":
        return precision
    return "bf16" if native_bf16() else "fp32"


def autocast(precision: str) -> AbstractContextManager[object]:
    """The forward pass in `fp32 | bf16`, weights kept as they are."""
    import torch

    if precision == "fp32":
        return nullcontext()
    context: AbstractContextManager[object] = torch.autocast(best_device(), dtype=torch.bfloat16)
    return context
