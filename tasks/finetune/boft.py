"""BOFT with one butterfly factor, which is what peft runs without a CUDA extension: full rotations from blocks, and a scale."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tasks.accounting.lora import Layer
from tasks.finetune.shared.on_linear import OnLinear, products
from tasks.finetune.technique import Plan, Shape, Tuning


class Boft(OnLinear):
    """Orthogonal butterfly rotation of every layer's input, and a scale of its output (arXiv:2311.06243)."""

    boft_block_size: int = Field(default=4, ge=2)
    """Inputs that are rotated together; every adapted layer's inputs must be a multiple of it."""
    boft_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the blocks that leave their inputs as they are, drawn anew at every step of training."""

    config_class: ClassVar[str] = "BOFTConfig"
    fixed: ClassVar[bool] = True

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """A `PeftModel` of which only the adapter is trained."""
        from peft.tuners.boft import layer

        # one butterfly factor needs no extension; peft would try to compile it for every layer, and where it can't, leave
        # another compiler in the environment than torch.compile expects
        kept, layer.get_fbd_cuda = layer.get_fbd_cuda, lambda: None
        try:
            return super().begin(base, plan)
        finally:
            layer.get_fbd_cuda = kept

    def stands_before(self, layer: Layer) -> bool:
        """The layer reads what was rotated."""
        return True

    def layer_shapes(self, layer: Layer) -> list[Shape]:
        """A matrix for each block of the inputs, and a scale for each output."""
        size = self.boft_block_size
        return [(1, layer.inputs // size, size, size), (layer.outputs, 1)]

    def layer_flops(self, layer: Layer, learns: bool) -> float:
        """A product with the whole rotation, its gradient, the input's if it needs one; the scale's gradient."""
        return (3 if learns else 2) * products([(layer.inputs, layer.inputs)]) + products([(layer.outputs,)])

    def layer_work(self, layer: Layer) -> float:
        """Three products of matrices as wide as the input (two permutations, one identity), and a gradient of each."""
        return 6 * products([(layer.inputs**3,)])

    def layer_refused(self, layer: Layer) -> str:
        """Inputs that aren't whole blocks."""
        if layer.inputs % self.boft_block_size == 0:
            return ""
        return (
            f"finetune.boft.boft_block_size: found {self.boft_block_size}; {layer.last} has {layer.inputs} inputs, no multiple "
            "of it: choose a divisor of every adapted layer's inputs, or other target_modules"
        )
