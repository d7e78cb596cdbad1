"""LoRA's layers for training on a CPU: what peft computes, in fewer passes over the memory, with less kept of it.

peft's own forward pass makes the update, scales it and adds it in three passes over the output, and autograd as many
over its gradient; a product that adds to what is there does the same in one. Behind a gate (SwiGLU) the product of gate
and up is made again in the backward pass instead of being kept, which no product of matrices depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch

from tasks.training.kernels import GATED


class Layer(NamedTuple):
    """A frozen linear layer and its update: W (outputs, inputs), b, A (r, inputs), B (outputs, r), what B A is multiplied by."""

    weight: Any
    bias: Any
    down: Any
    up: Any
    scale: float


class LowRankLinear(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """x W^T + b + scale (x A^T) B^T with W and b frozen; kept for the backward pass are x and x A^T."""

    @staticmethod
    def forward(ctx: Any, inputs: Any, *layer: Any) -> Any:
        """Outputs (..., outputs) of x (..., inputs); `layer` as `Layer` has it."""
        out, inner = _product(inputs, Layer(*layer))
        ctx.save_for_backward(inputs, inner, layer[0], layer[2], layer[3])
        ctx.scale = layer[4]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Gradients of x, A and B."""
        inputs, inner, weight, down, up = ctx.saved_tensors
        layer = Layer(weight, None, down, up, ctx.scale)
        to_inputs, to_down, to_up = _slopes(gradient, inputs, inner, layer, ctx.needs_input_grad[0])
        return to_inputs, None, None, to_down, to_up, None


class GatedLowRank(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """The same of x = silu(gate) * up; kept are gate and up, and not x."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any, *layer: Any) -> Any:
        """Outputs (..., outputs) of gate and up, each (..., inputs)."""
        out, inner = _product(torch.nn.functional.silu(gate).mul_(up), Layer(*layer))
        ctx.save_for_backward(gate, up, inner, layer[0], layer[2], layer[3])
        ctx.scale = layer[4]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        """Gradients of gate, up, A and B."""
        gate, up, inner, weight, down, lift = ctx.saved_tensors
        opened = torch.nn.functional.silu(gate)
        layer = Layer(weight, None, down, lift, ctx.scale)
        to_inputs, to_down, to_lift = _slopes(gradient, opened * up, inner, layer, True)
        to_up = opened.mul_(to_inputs)
        to_gate = torch.ops.aten.silu_backward(to_inputs.mul_(up), gate)
        return to_gate, to_up, None, None, to_down, to_lift, None


def _product(inputs: Any, layer: Layer) -> tuple[Any, Any]:
    """Outputs (..., outputs), and x A^T (n, r)."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    inner = torch.mm(rows, layer.down.t())
    out = torch.nn.functional.linear(rows, layer.weight, layer.bias)
    torch.addmm(out, inner, layer.up.t(), alpha=layer.scale, out=out)
    return out.view(*inputs.shape[:-1], -1), inner


def _slopes(gradient: Any, inputs: Any, inner: Any, layer: Layer, through: bool) -> tuple[Any, Any, Any]:
    """Gradients of x (if `through`), A and B."""
    rows, slopes = inputs.reshape(-1, inputs.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
    to_inner = torch.mm(slopes, layer.up).mul_(layer.scale)
    to_up = torch.mm(slopes.t(), inner).mul_(layer.scale)
    to_down = torch.mm(to_inner.t(), rows)
    if not through:
        return None, to_down, to_up
    to_inputs = torch.mm(slopes, layer.weight)
    torch.addmm(to_inputs, to_inner, layer.down, out=to_inputs)
    return to_inputs.view(inputs.shape), to_down, to_up


def _plain(module: Any, inputs: Any) -> Layer | None:
    """`module` where it is LoRA as it was first described, and `inputs` are float32; None where it is anything more."""
    active = [name for name in module.active_adapters if name in module.lora_A]
    if len(active) != 1 or module.merged or module.disable_adapters or active[0] in module.lora_variant:
        return None
    (name,), base = active, module.base_layer
    down, up = module.lora_A[name], module.lora_B[name]
    tensors = [tensor for tensor in (inputs, base.weight, base.bias, down.weight, up.weight) if tensor is not None]
    if any(tensor.dtype is not torch.float32 for tensor in tensors) or torch.is_autocast_enabled("cpu"):
        return None
    if base.weight.requires_grad or down.bias is not None or up.bias is not None or not torch.is_grad_enabled():
        return None
    if (base.bias is not None and base.bias.requires_grad) or type(module.lora_dropout[name]) is not torch.nn.Identity:
        return None
    return Layer(base.weight, base.bias, down.weight, up.weight, float(module.scaling[name]))


def _linear(module: Any, peft: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """`module(inputs)`: here where it is plain, by peft itself otherwise."""
    layer = None if args or kwargs else _plain(module, inputs)
    return peft(inputs, *args, **kwargs) if layer is None else LowRankLinear.apply(inputs, *layer)


def _gated(module: Any, own: Any, inputs: Any) -> Any:
    """`module(inputs)` of a gated feed-forward layer."""
    layer = _plain(module.down_proj, inputs)
    if layer is None or module.down_proj._forward_hooks or module.down_proj._forward_pre_hooks:
        return own(inputs)
    return GatedLowRank.apply(module.gate_proj(inputs), module.up_proj(inputs), *layer)


@contextmanager
def low_rank(model: Any) -> Iterator[None]:
    """Train the LoRA layers of `model` this way inside, where it runs on a CPU; afterwards they are as they were."""
    changed: list[tuple[Any, Callable[..., Any]]] = []
    if hasattr(model, "peft_config") and next(model.parameters()).device.type == "cpu":
        from peft.tuners.lora import Linear
        from transformers.activations import ACT2FN

        def ours(module: Any) -> bool:
            return type(module) is Linear and type(module.base_layer) is torch.nn.Linear

        for module in model.modules():
            if ours(module):
                changed.append((module, _linear))
            elif (
                type(module).__name__ in GATED.values()
                and ours(module.down_proj)
                and type(module.act_fn) is type(ACT2FN["silu"])
            ):
                changed.append((module, _gated))
    for module, forward in changed:
        module.forward = partial(forward, module, module.forward)
    try:
        yield
    finally:
        for module, _ in changed:
            del module.forward
