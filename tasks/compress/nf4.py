"""bitsandbytes' NF4: weights in 4-bit normal-float blocks, multiplied in a wider type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import UserError
from tasks.core.schema import Technique

if TYPE_CHECKING:
    from tasks.compress.workbench import Workbench

BLOCK_IN, BLOCK_OUT = 64, 32


class Nf4(Technique):
    """4-bit NormalFloat weights in blocks of 64, no calibration (arXiv:2305.14314)."""

    bnb_4bit_use_double_quant: bool = True
    """Quantize the blocks' scales too: about 0.37 bits per weight less."""
    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Arithmetic of the products, and type of whatever stays unquantized."""

    def apply(self, bench: Workbench) -> str:
        """Quantize the linear layers of the blocks.

        Raises:
            UserError: a layer whose sizes the 4-bit kernels can't work on.
        """
        from transformers import BitsAndBytesConfig

        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **self.model_dump())
        model = bench.quantize(config, dtype=self.bnb_4bit_compute_dtype)
        _refuse_odd_sizes(model)
        # saved before any forward pass: the first one repacks the weights in place for the machine's own kernel and
        # rounds their scales to bfloat16
        bench.save(model)
        dtype = self.bnb_4bit_compute_dtype
        return f"linear layers of the blocks in 4 bits; embeddings, norms and output layer in {dtype}"


def _refuse_odd_sizes(model: Any) -> None:
    # bitsandbytes quantizes any size, but its CPU kernel then fails in the first forward pass, on some machines only
    from bitsandbytes.nn.modules import Linear4bit

    for name, layer in model.named_modules():
        if isinstance(layer, Linear4bit) and (layer.in_features % BLOCK_IN or layer.out_features % BLOCK_OUT):
            raise UserError(
                f"compress.nf4: layer {name} has {layer.in_features} inputs and {layer.out_features} outputs; "
                f"4-bit kernels need multiples of {BLOCK_IN} and {BLOCK_OUT}",
                "choose such sizes in design (hidden_size, intermediate_size), or compress.method: int8",
            )
