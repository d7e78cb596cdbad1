"""AdamW with moments of 4 bits, two codes in a byte."""

from __future__ import annotations

from math import prod
from typing import Any

from pydantic import PositiveInt

from tasks.optimizers.shared.blockwise import Blockwise, block_scales, dynamic_table, encode, spread
from tasks.optimizers.shared.ruled import State
from tasks.optimizers.technique import Shape


class AdamW4bit(Blockwise):
    """AdamW, moments in 4-bit codes: first per block, second by row and column, never zero (arXiv:2309.01507)."""

    block_size: PositiveInt = 128
    """Numbers of the first moment, or of a vector's second, that share a scale."""

    def read(self, state: State, name: str, shape: Any) -> Any:
        """Value of the code times its scale."""
        codes = state[name]
        pairs = codes.new_empty((codes.numel(), 2))
        pairs[:, 0], pairs[:, 1] = codes & 15, codes >> 4
        values = _table(name, codes.device)[pairs.flatten()[: prod(shape)].int()]
        return values.view(shape) * self._scale(state, name, shape)

    def write(self, state: State, name: str, moment: Any) -> None:
        """The nearest code of every number's share of its scale."""
        import torch

        if name == "exp_avg_sq" and moment.dim() > 1:
            state[f"{name}_rows"] = moment.amax(-1, keepdim=True)
            state[f"{name}_columns"] = moment.amax(-2, keepdim=True)
        else:
            state[f"{name}_scale"] = block_scales(moment, self.block_size)
        codes = encode(moment / self._scale(state, name, moment.shape), _table(name, moment.device)).flatten()
        pairs = torch.nn.functional.pad(codes, (0, codes.numel() % 2)).view(-1, 2)
        state[name] = pairs[:, 0] | pairs[:, 1] << 4

    def _scale(self, state: State, name: str, shape: Any) -> Any:
        """Of every number: the smaller of its row's and its column's largest, or its block's largest."""
        import torch

        if f"{name}_rows" in state:
            smaller = torch.minimum(state[f"{name}_rows"], state[f"{name}_columns"])
            return smaller.clamp_min(torch.finfo(torch.float32).tiny)
        return spread(state[f"{name}_scale"], self.block_size, shape)

    def quantized_bytes(self, shape: Shape) -> int:
        """Half a byte per number, twice; scales of the first moment's blocks, of the second's rows and columns."""
        numbers = prod(shape)
        rank_one = 4 * (prod(shape[:-1]) + prod(shape[:-2]) * shape[-1])
        second = rank_one if len(shape) > 1 else self.scale_bytes(numbers)
        return 2 * -(-numbers // 2) + self.scale_bytes(numbers) + second


def _table(name: str, device: Any) -> Any:
    """Dynamic exponents for the first moment; 1/16 to 1 for the second: a zero there would blow its step up."""
    import torch

    return dynamic_table(4, True, device) if name == "exp_avg" else torch.arange(1, 17, device=device) / 16
