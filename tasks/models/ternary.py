"""Ternary linear layers (BitNet b1.58, arXiv:2402.17764) that train, as `quantization_mode: online` asks for.

transformers has such a layer, `AutoBitLinear`, but `from_config` builds a dense model instead, and its rounding is compiled
anew for every shape. This one computes the same without a compiler, and what it saves is what transformers reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from tasks.models import Config

SMALLEST = 1e-5
"""Smallest mean or maximum that is divided by."""


class Rounding(torch.autograd.Function):  # type: ignore[misc]  # torch is untyped here
    """Rounded forward, as if it weren't backward: the straight-through estimator (arXiv:1308.3432)."""

    @staticmethod
    def forward(_: Any, __: Any, rounded: Any) -> Any:
        """The rounded tensor, given the exact one and it."""
        return rounded.view_as(rounded)

    @staticmethod
    def backward(_: Any, *gradients: Any) -> Any:
        """All of the gradient to the exact one."""
        return gradients[0], None


class TernaryLinear(torch.nn.Linear):  # type: ignore[misc]  # torch is untyped here
    """A linear layer whose weight is rounded to -s, 0 or s (s: its mean magnitude) and its input to 8 bits per token."""

    def forward(self, input: Any) -> Any:
        """(..., in) to (..., out)."""
        return functional.linear(
            Rounding.apply(input, eight_bits(input.detach())),
            Rounding.apply(self.weight, ternary(self.weight.detach())),
            self.bias,
        )


def ternary(weight: Any) -> Any:
    """Every weight's nearest of -s, 0 and s, where s is their mean magnitude."""
    scale = 1 / weight.float().abs().mean().clamp(min=SMALLEST)
    return ((weight.float() * scale).round().clamp(-1, 1) / scale).to(weight.dtype)


def eight_bits(activation: Any) -> Any:
    """Every activation's nearest of 256 steps, of a size of its own for each token."""
    scale = 127 / activation.float().abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)
    return ((activation.float() * scale).round().clamp(-128, 127) / scale).to(activation.dtype)


def is_ternary(config: Config) -> bool:
    """Whether a config asks for ternary layers that train."""
    asked = config.get("quantization_config") or {}
    wanted = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
    return all(asked.get(key) == value for key, value in wanted.items()) and not asked.get("use_rms_norm")


def dense_config(folder: Path, config: Config) -> Any:
    """Transformers' config of a ternary model's folder without the rounding, to load its exact weights; None: of another."""
    from transformers import AutoConfig

    if not is_ternary(config):
        return None
    plain = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    del plain.quantization_config
    return plain


def make_ternary(model: Any, config: Config) -> None:
    """Turn linear layers into ternary ones, in place and weights kept, where the config asks for it."""
    if not is_ternary(config):
        return
    asked = config["quantization_config"]
    spared = asked.get("modules_to_not_convert") or ["lm_head"]
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear and not any(part in name.split(".") for part in spared):
            module.__class__ = TernaryLinear
    model.config.quantization_config = asked
