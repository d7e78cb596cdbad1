"""Adam whose moments are kept in few bits: codes of a small table, scaled block by block."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

from pydantic import PositiveInt

from tasks.optimizers.shared.ruled import Place, Ruled, State, adam_direction, corrected, move_moments, tick
from tasks.optimizers.technique import AdamLike, Shape, adam_bytes


class Blockwise(Ruled, AdamLike):
    """AdamW with quantized moments; a step is computed in float32, one tensor at a time, before they are rounded again."""

    elementwise = False

    block_size: PositiveInt = 256
    """Numbers that share a scale."""
    min_quantized: PositiveInt = 4096
    """Tensors of fewer numbers keep float32 moments."""

    def direction(self, gradient: Any, state: State, place: Place) -> Any:
        """AdamW's, of moments as they were read."""
        import torch

        betas = (self.beta1, self.beta2)
        if gradient.numel() < self.min_quantized:
            return adam_direction(gradient, state, betas, self.eps)
        if "step" in state:
            first, second = self.read(state, "exp_avg", gradient.shape), self.read(state, "exp_avg_sq", gradient.shape)
        else:
            first, second = torch.zeros_like(gradient), torch.zeros_like(gradient)
        step = tick(state)
        move_moments(first, second, gradient, betas)
        self.write(state, "exp_avg", first)
        self.write(state, "exp_avg_sq", second)
        return corrected(first, second, step, betas, self.eps)

    def read(self, state: State, name: str, shape: Any) -> Any:
        """A moment as float32."""
        raise NotImplementedError

    def write(self, state: State, name: str, moment: Any) -> None:
        """Keep a moment in few bits."""
        raise NotImplementedError

    def bytes_of(self, shape: Shape, inside: bool) -> int:
        """A step, and what `write` keeps; AdamW's state for a small tensor."""
        return adam_bytes(shape) if prod(shape) < self.min_quantized else 4 + self.quantized_bytes(shape)

    def quantized_bytes(self, shape: Shape) -> int:
        """Codes and scales of both moments."""
        raise NotImplementedError

    def scale_bytes(self, numbers: int) -> int:
        """Float32 scales of one moment, one per block."""
        return 4 * -(-numbers // self.block_size)


@cache
def dynamic_table(bits: int, signed: bool, device: Any) -> Any:
    """All values of a dynamic exponent code, ascending in [-1, 1] or [0, 1] (arXiv:2110.02861, section 2.1).

    A number's leading zeros are its decimal exponent, the bits left over its fraction: small numbers get many
    magnitudes, large ones many digits. Zero and one are values of their own.
    """
    import torch

    values = [torch.tensor([0.0, 1.0])]
    for exponent in range(bits - 1):
        edges = torch.linspace(0.1, 1, 2 ** (exponent if signed else exponent + 1) + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - bits + 2)
        values += [middles, -middles] if signed else [middles]
    return torch.cat(values).sort().values.to(device)


def encode(share: Any, table: Any) -> Any:
    """Index of the nearest value of an ascending table, uint8."""
    import torch

    return torch.bucketize(share, (table[:-1] + table[1:]) / 2).to(torch.uint8)


def block_scales(moment: Any, size: int) -> Any:
    """Largest magnitude of every block of `size` consecutive numbers."""
    import torch

    flat = moment.flatten().abs()
    return torch.nn.functional.pad(flat, (0, -flat.numel() % size)).view(-1, size).amax(1)


def spread(scales: Any, size: int, shape: Any) -> Any:
    """Every number's scale, in the tensor's shape; never zero."""
    import torch

    every = scales.repeat_interleave(size)[: prod(shape)].view(shape)
    return every.clamp_min(torch.finfo(torch.float32).tiny)
