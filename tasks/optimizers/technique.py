"""What every optimizer of the registry can do: be built from parameters, and say what its state weighs."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any, ClassVar

from pydantic import Field

from tasks.core.schema import Technique

Named = list[tuple[str, Any]]
"""Parameters to train with their names, in the model's order."""

Shape = tuple[int, ...]


class OptimizerTechnique(Technique):
    """An optimizer. Fields are what upstream calls them.

    Attributes:
        elementwise: whether an element's update hangs on that element's own history alone, so that pieces of a tensor may
            be updated apart from each other (FSDP, ZeRO).
        in_backward: whether it updates a tensor as soon as its gradient is there and then drops the gradient: no gradient
            can be accumulated over parts, and none is left to be clipped by its global norm.
        zeroth_order: whether it estimates a slope from losses alone: nothing is computed backward, no gradient is there.
        schedule_free: whether it averages its own iterates, so that the learning rate must not be lowered towards the end.
    """

    elementwise: ClassVar[bool] = True
    in_backward: ClassVar[bool] = False
    zeroth_order: ClassVar[bool] = False
    schedule_free: ClassVar[bool] = False

    @property
    def tensor_by_tensor(self) -> bool:
        """Whether it can be stepped one tensor at a time, and each be rounded after its step."""
        return self.elementwise and self.keeps_gradients and not self.schedule_free

    @property
    def keeps_gradients(self) -> bool:
        """Whether all gradients of a step are there when it is asked to move, and after it has."""
        return not self.in_backward and not self.zeroth_order

    def gradient_bytes(self, shapes: Iterable[Shape]) -> int:
        """Bytes of what lives at once of a step's float32 gradients: of the largest tensor's alone where each is dropped.

        A zeroth-order one has noise in the place of a gradient, of one tensor at a time.
        """
        sizes = [prod(shape) for shape in shapes]
        return 4 * (sum(sizes) if self.keeps_gradients else max(sizes, default=0))

    def build(self, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """The optimizer, as a `torch.optim.Optimizer` whose `state_dict()` holds tensors and numbers only.

        Args:
            named: parameters to train with their names.
            learning_rate: peak; the loop sets `group["lr"] = rate * group.get("lr_scale", 1)` before every step.
            weight_decay: decoupled, of matrices only.
        """
        raise NotImplementedError

    def state_bytes(self, shapes: Iterable[Shape]) -> int:
        """Bytes of its state after the first step, for float32 parameters of these shapes, in the model's order."""
        raise NotImplementedError

    def rounded_state_bytes(self, shapes: Iterable[Shape]) -> int:
        """The same where it is stepped tensor by tensor and rounded: what has its tensor's shape is bfloat16.

        The rest, such as a step per tensor, is smaller than a tensor and stays float32.
        """
        found = list(shapes)
        alike = sum(self.state_bytes([shape]) // (4 * prod(shape)) * prod(shape) for shape in found)
        return self.state_bytes(found) - 2 * alike


class AdamLike(OptimizerTechnique):
    """What keeps Adam's two moments in some form."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Averaging coefficient of the gradient."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Averaging coefficient of its square."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""


def decay_groups(named: Named, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay, vectors (norms, biases) don't; an empty group is left out."""
    matrices = [p for _, p in named if p.dim() >= 2]
    vectors = [p for _, p in named if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def elements(shapes: Iterable[Shape]) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(prod(shape) for shape in shapes)


def adam_bytes(shape: Shape) -> int:
    """Two float32 moments per number, and a float32 step."""
    return 8 * prod(shape) + 4


def factored_bytes(shape: Shape) -> int:
    """A float32 per row and column of a matrix, or per number of a vector, and a float32 step."""
    numbers = prod(shape[:-1]) + prod(shape[:-2]) * shape[-1] if len(shape) > 1 else prod(shape)
    return 4 * numbers + 4


def hidden(shapes: Iterable[Shape]) -> list[bool]:
    """Which tensors are matrices inside blocks, or stacks of them (experts), from shapes in the model's order.

    Not vectors, not the kernels of convolutions (one channel wide), and neither the input embedding, a model's first
    matrix, nor the output layer, which has its shape.
    """
    found = list(shapes)
    embedding = next((shape for shape in found if len(shape) == 2), None)
    return [len(shape) in (2, 3) and min(shape[-2:]) > 1 and shape != embedding for shape in found]
