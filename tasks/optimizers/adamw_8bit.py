"""AdamW with moments of 8 bits.

bitsandbytes has the same, and it runs on a CPU; but its state is a nested dict with a table of 256 values per moment and
tensor, where checkpoints here hold tensors by name.
"""

from __future__ import annotations

from math import prod
from typing import Any

from tasks.optimizers.shared.blockwise import Blockwise, block_scales, dynamic_table, encode, spread
from tasks.optimizers.shared.ruled import State
from tasks.optimizers.technique import Shape


class AdamW8bit(Blockwise):
    """AdamW, moments in 8-bit dynamic exponent codes, scaled per block (arXiv:2110.02861)."""

    def read(self, state: State, name: str, shape: Any) -> Any:
        """Value of the code times the scale of the block."""
        codes = state[name]
        table = dynamic_table(8, name == "exp_avg", codes.device)
        return table[codes.int()] * spread(state[f"{name}_scale"], self.block_size, shape)

    def write(self, state: State, name: str, moment: Any) -> None:
        """The nearest code of every number's share of its block's largest."""
        scales = block_scales(moment, self.block_size)
        table = dynamic_table(8, name == "exp_avg", moment.device)
        state[name] = encode(moment / spread(scales, self.block_size, moment.shape), table)
        state[f"{name}_scale"] = scales

    def quantized_bytes(self, shape: Shape) -> int:
        """A byte per number and a scale per block, twice."""
        return 2 * (prod(shape) + self.scale_bytes(prod(shape)))
