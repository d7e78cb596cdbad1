"""Models that bitsandbytes quantizes while they are loaded. What is imported here needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tasks.models import Config

BLOCK_IN, BLOCK_OUT = 64, 32
"""Inputs and outputs of a layer have to be multiples of these: bitsandbytes quantizes any size to 4 bits, but its CPU
kernel then fails in the first forward pass, on some machines only."""


def quantization(config: Config) -> dict[str, Any]:
    """How a config's weights are stored, if they are quantized already; ternary ones that are rounded as they train aren't."""
    found = dict(config.get("quantization_config") or {})
    return {} if found.get("quantization_mode") == "online" else found


def left_plain(layers: Iterable[tuple[str, int, int]], bits: int) -> list[str]:
    """Names of linear layers (name, inputs, outputs) whose sizes or inputs the kernels of `bits` bits can't take.

    DeepSeek hands kv_b_proj a tensor of four dimensions, and the 8-bit kernel takes three at most.
    """
    if bits == 8:
        return [name for name, _, _ in layers if name.endswith(".kv_b_proj")]
    return [name for name, inputs, outputs in layers if inputs % BLOCK_IN or outputs % BLOCK_OUT]


def load_quantized(folder: Path, settings: Any, dtype: str, skip: Sequence[str] = ()) -> Any:
    """The causal language model of an unquantized folder, quantized while it is loaded.

    Args:
        folder: as `save_model` writes it.
        settings: a transformers quantization config.
        dtype: of whatever stays unquantized, e.g. "float16".
        skip: names of linear layers to leave as they are, beside the output layer.

    Raises:
        UserError: the folder can't be read.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.quantizers.base import get_keys_to_not_convert

    from tasks.models.load import friendly_errors, outline, quiet, read_config, unscaled

    if skip:
        settings.llm_int8_skip_modules = [*get_keys_to_not_convert(outline(read_config(folder))), *skip]
    with friendly_errors(folder), quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            quantization_config=settings,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
        )
    return unscaled(model)


def load_bits(folder: Path) -> Any:
    """The model of a folder that bitsandbytes has quantized, to train something beside its weights.

    Raises:
        UserError: the folder can't be read.
    """
    from tasks.models.device import native_bf16
    from tasks.models.load import load_model

    dtype = "bfloat16" if native_bf16() else "float32"
    return trainable(load_model(folder, dtype), dtype)


def trainable(model: Any, dtype: str) -> Any:
    """`model`, whose 4-bit layers keep the weights they have and multiply in `dtype`.

    On a CPU with AVX512-BF16 such a layer repacks its weight in the first evaluation, for a kernel through which no
    gradient flows, and rounds its scales.
    """
    import torch

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = getattr(torch, dtype)
    return model


def dequantized(model: Any) -> Any:
    """A model of bitsandbytes' layers as plain float32, in place; it must not have run yet."""
    import torch

    from tasks.models.load import cast, quiet

    with quiet():
        plain = model.dequantize(torch.float32)
    plain._weight_conversions = None  # how quantized weights were read; saving would want to turn it around
    return cast(plain, torch.float32)
