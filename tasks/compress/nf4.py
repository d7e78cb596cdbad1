"""bitsandbytes' NF4: weights in 4-bit normal-float blocks, multiplied in a wider type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tasks.core.errors import UserError
from tasks.core.schema import Technique
from tasks.models.quantized import BLOCK_IN, BLOCK_OUT, left_plain

if TYPE_CHECKING:
    from tasks.compress.workbench import Workbench


class Nf4(Technique):
    """4-bit NormalFloat weights in blocks of 64, no calibration (arXiv:2305.14314)."""

    bnb_4bit_use_double_quant: bool = True
    """Quantize the blocks' scales too: about 0.37 bits per weight less."""
    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Arithmetic of the products, and type of whatever stays unquantized."""

    def apply(self, bench: Workbench) -> str:
        """Quantize the linear layers of the blocks whose sizes the 4-bit kernels can work on.

        Raises:
            UserError: there is none.
        """
        from transformers import BitsAndBytesConfig

        layers = bench.linear_layers()
        skip = left_plain([(name, *sizes) for name, sizes in layers.items()], bits=4)
        if len(skip) == len(layers):
            raise _no_layer(layers)
        dtype = self.bnb_4bit_compute_dtype
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **self.model_dump())
        # saved before any forward pass: the first one repacks the weights in place for the machine's own kernel and
        # rounds their scales to bfloat16
        bench.save(bench.quantize(config, dtype, skip))
        done = f"linear layers of the blocks in 4 bits; embeddings, norms and output layer in {dtype}"
        return done + bench.left_out(skip)


def _no_layer(layers: dict[str, tuple[int, int]]) -> UserError:
    name, (inputs, outputs) = next(iter(layers.items()), ("none", (0, 0)))
    return UserError(
        f"compress.nf4: layer {name} has {inputs} inputs and {outputs} outputs, and the others fit no better; "
        f"4-bit kernels need multiples of {BLOCK_IN} and {BLOCK_OUT}",
        "choose such sizes in design (hidden_size, intermediate_size), or compress.method: int8",
    )
