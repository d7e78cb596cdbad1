"""What a technique does between the steps of the loop."""

from __future__ import annotations

from typing import Any


class Hooks:
    """Nothing, by itself.

    Attributes:
        regime: name of what is trained at the moment; FLOPs are counted anew for every name.
        fixed: whether a pass does work that doesn't grow with its tokens (on weights alone): its FLOPs are counted apart.
    """

    regime: str = ""
    fixed: bool = False

    def before_step(self, step: int, optimizer: Any) -> None:
        """Told before the forward pass of a step; a resumed run is told the same number."""

    def after_step(self, step: int) -> None:
        """Told when the optimizer has moved, gradients still being there; `step` is the one just done, from 0."""

    def tensors(self) -> dict[str, Any]:
        """Tensors by name, beside what is trained, that decide how a run goes on; a checkpoint keeps them, and fills them."""
        return {}
