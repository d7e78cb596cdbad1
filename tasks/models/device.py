"""Where and in which arithmetic a model runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tasks.core.errors import UserError


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


def native_fp8() -> bool:
    """Whether the machine multiplies 8-bit floats in hardware (CUDA capability 8.9)."""
    import torch

    return torch.cuda.is_available() and tuple(torch.cuda.get_device_capability()) >= (8, 9)


def resolve_precision(precision: str) -> str:
    """`precision`, with `auto` made `bf16` where the machine multiplies it natively, else `fp32`.

    Raises:
        UserError: `fp8` without the hardware or the library it takes.
    """
    from importlib.util import find_spec

    if precision == "fp8" and not native_fp8():
        raise UserError(
            "pretrain.precision: found fp8; it needs an NVIDIA GPU of compute capability 8.9 or more",
            "set it to auto, fp32, bf16, fp16 or bf16_pure",
        )
    if precision == "fp8" and find_spec("torchao") is None:
        raise UserError("pretrain.precision: found fp8; it needs torchao", "pip install torchao, or set it to bf16")
    if precision != "auto":
        return precision
    return "bf16" if native_bf16() else "fp32"


def products(precision: str) -> str:
    """Type of the matrix products under a resolved `precision`, as torch calls it."""
    return {"fp32": "float32", "fp16": "float16", "fp8": "float8"}.get(precision, "bfloat16")


def computable(model: Any) -> Any:
    """`model` in an arithmetic this machine has: half-precision weights become float32 where no hardware multiplies them.

    A CPU without units for bfloat16 multiplies it a hundred times slower than float32. Quantized models stay as they are.
    """
    import torch

    from tasks.models.load import cast

    half = model.dtype in (torch.bfloat16, torch.float16) and getattr(model, "hf_quantizer", None) is None
    return cast(model, torch.float32) if half and best_device() == "cpu" and not native_bf16() else model


def autocast(precision: str) -> AbstractContextManager[object]:
    """The forward pass under a resolved `precision`, weights kept as they are; bf16_pure's are bfloat16 themselves."""
    import torch

    if precision in ("fp32", "bf16_pure"):
        return nullcontext()
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    context: AbstractContextManager[object] = torch.autocast(best_device(), dtype=kind)
    return context
