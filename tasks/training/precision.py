"""Arithmetic of a step beyond autocast: scaled losses (fp16), weights in bfloat16 alone (bf16_pure), fp8 products."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tasks.core.errors import UserError
from tasks.optimizers.technique import OptimizerTechnique

FIRST_SCALE, GROW_AFTER = 2.0**16, 2000
"""Loss scale to begin with, and steps without overflow after which it doubles (arXiv:1710.03740, torch's values)."""


class LossScale:
    """The factor that keeps fp16's small gradients from vanishing: halved on overflow, doubled after quiet steps.

    Always a power of two, so that unscaling is exact.

    Attributes:
        dropped: steps whose gradient overflowed, so that nothing was updated.
    """

    def __init__(self) -> None:
        self.scale, self.quiet, self.dropped = FIRST_SCALE, 0, 0

    @property
    def least(self) -> bool:
        """Whether it is 1, where no scale is to blame for what is not a number."""
        return self.scale <= 1.0

    def update(self, overflowed: bool) -> None:
        """What a step's outcome does to the scale."""
        if overflowed:
            self.scale, self.quiet, self.dropped = max(1.0, self.scale / 2), 0, self.dropped + 1
        elif self.quiet + 1 == GROW_AFTER:
            self.scale, self.quiet = self.scale * 2, 0
        else:
            self.quiet += 1

    def state(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"loss_scale": self.scale, "quiet_steps": float(self.quiet), "overflowed_steps": float(self.dropped)}

    def load(self, values: dict[str, float]) -> None:
        """Go on from `state()`."""
        self.scale, self.quiet = values["loss_scale"], int(values["quiet_steps"])
        self.dropped = int(values["overflowed_steps"])


def unscale(trained: list[Any], scale: float) -> None:
    """Divide the gradients of the `trained` tensors by `scale`."""
    for parameter in trained:
        if parameter.grad is not None:
            parameter.grad.mul_(1.0 / scale)


def lower(graph: Any, precision: str) -> None:
    """Keep what a `Graph` trains as `precision` wants it: bfloat16 for bf16_pure, fp8 linear layers for fp8.

    Buffers (rotary frequencies, balancing biases) stay as they are. fp8 is torchao's dynamic scaling (arXiv:2209.05433);
    it needs a GPU of compute capability 8.9 and was written without one: unproved.
    """
    import torch

    if precision == "bf16_pure":
        for parameter in graph.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.bfloat16()
    elif precision == "fp8":
        float8 = import_module("torchao.float8")  # no dependency: a name the type checker can't follow

        def fits(module: Any, name: str) -> bool:
            sizes = module.weight.shape if isinstance(module, torch.nn.Linear) else (1,)
            return "lm_head" not in name and all(size % 16 == 0 for size in sizes)

        float8.convert_to_float8_training(graph.model, module_filter_fn=fits)


def steps_of(optimizer: Any, technique: OptimizerTechnique, precision: str) -> Any:
    """`optimizer`, or for bf16_pure one that rounds its updates stochastically.

    Raises:
        UserError: the optimizer can't be stepped one tensor at a time.
    """
    if precision != "bf16_pure":
        return optimizer
    if not technique.tensor_by_tensor:
        raise UserError(
            f"pretrain.precision: found bf16_pure; {type(technique).__name__} can't be rounded tensor by tensor",
            "set pretrain.precision to bf16 or fp32, or pretrain.optimizer.method to adamw",
        )
    return StochasticRounding(optimizer)


class StochasticRounding:
    """An optimizer over bfloat16 tensors that computes in float32, one tensor at a time (arXiv:2010.06192).

    Weights, gradients and moments are 2 bytes each: 8 bytes per parameter with Adam instead of 16, and float32 copies of
    one tensor meanwhile. Updates smaller than half a step of bfloat16 would be lost by rounding to nearest; rounded up or
    down by chance they are right on average. Chance is torch's generator, which the loop seeds for every step.

    Args:
        optimizer: of bfloat16 parameters, with no state but that of single tensors.
    """

    def __init__(self, optimizer: Any) -> None:
        self._inner = optimizer

    def __getattr__(self, name: str) -> Any:
        """All but the step is the optimizer's own."""
        return getattr(self._inner, name)

    def step(self) -> None:
        """Update every tensor that has a gradient."""
        inner = self._inner
        groups = inner.param_groups
        try:
            for group in groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        inner.param_groups = [{**group, "params": [parameter]}]
                        self._one(parameter)
        finally:
            inner.param_groups = groups

    def _one(self, parameter: Any) -> None:
        import torch

        gradient, state = parameter.grad.float(), self._inner.state[parameter]
        parameter.grad = None
        for name, value in state.items():
            if type(value) is torch.Tensor and value.dtype == torch.bfloat16:
                state[name] = value.float()
        parameter.data = parameter.data.float()
        parameter.grad = gradient
        self._inner.step()
        parameter.grad = None
        parameter.data = rounded(parameter.data)
        for name, value in self._inner.state[parameter].items():
            if type(value) is torch.Tensor and value.dtype == torch.float32 and value.shape == parameter.shape:
                self._inner.state[parameter][name] = rounded(value)


def rounded(values: Any) -> Any:
    """Finite float32 `values` as bfloat16, up or down with the probability that keeps their mean."""
    import torch

    bits = values.contiguous().view(torch.int32)
    noise = torch.randint_like(bits, 1 << 16)
    return ((bits + noise) & -65536).view(torch.float32).bfloat16()
