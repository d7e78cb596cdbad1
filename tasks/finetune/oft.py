"""OFT: what a layer reads is first rotated, block by block; angles between neurons stay as they are."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tasks.accounting.lora import Layer
from tasks.finetune.shared.on_linear import OnLinear, products
from tasks.finetune.technique import Shape


class Oft(OnLinear):
    """Orthogonal rotation of every layer's input, in blocks (arXiv:2306.07280)."""

    oft_block_size: int = Field(default=32, ge=2)
    """Inputs that are rotated together; every adapted layer's inputs must be a multiple of it."""
    block_share: bool = False
    """One rotation for all blocks of a layer."""
    use_cayley_neumann: bool = True
    """Make the rotation by a short series instead of an inverse: quicker, and orthogonal almost."""
    num_cayley_neumann_terms: int = Field(default=5, ge=3)
    """Terms of that series."""

    config_class: ClassVar[str] = "OFTConfig"
    fixed: ClassVar[bool] = True

    def stands_before(self, layer: Layer) -> bool:
        """The layer reads what was rotated."""
        return True

    def layer_shapes(self, layer: Layer) -> list[Shape]:
        """A skew-symmetric matrix for each block: what stands above its diagonal."""
        blocks = 1 if self.block_share else layer.inputs // self.oft_block_size
        return [(blocks, self.oft_block_size * (self.oft_block_size - 1) // 2)]

    def layer_flops(self, layer: Layer, learns: bool) -> float:
        """A product with every block, its gradient, and the input's if it needs one."""
        return (3 if learns else 2) * products([(layer.inputs, self.oft_block_size)])

    def layer_work(self, layer: Layer) -> float:
        """The series' products of blocks, and two gradients of each; of the inverse one product on the way back."""
        blocks = 1 if self.block_share else layer.inputs // self.oft_block_size
        terms = max(2, self.num_cayley_neumann_terms - 2)
        return (3 * terms if self.use_cayley_neumann else 1) * products([(blocks, self.oft_block_size**3)])

    def layer_refused(self, layer: Layer) -> str:
        """Inputs that aren't whole blocks."""
        if layer.inputs % self.oft_block_size == 0:
            return ""
        return (
            f"finetune.oft.oft_block_size: found {self.oft_block_size}; {layer.last} has {layer.inputs} inputs, no multiple of "
            "it: choose a divisor of every adapted layer's inputs, or other target_modules"
        )
