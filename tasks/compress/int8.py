"""bitsandbytes' LLM.int8: weights in 8 bits by row, activations with outlier features kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat

from tasks.core.schema import Technique
from tasks.models.quantized import left_plain

if TYPE_CHECKING:
    from tasks.compress.workbench import Workbench


class Int8(Technique):
    """8-bit weights and activations with outliers kept apart (arXiv:2208.07339)."""

    llm_int8_threshold: NonNegativeFloat = 6.0
    """Activations above this are multiplied in higher precision; 0: none are."""

    def apply(self, bench: Workbench) -> str:
        """Quantize the linear layers of the blocks."""
        from transformers import BitsAndBytesConfig

        skip = left_plain([(name, *sizes) for name, sizes in bench.linear_layers().items()], bits=8)
        # float16, because the kernel casts every other input to it anyway and logs a line each time it does
        dtype = "float16"
        model = bench.quantize(BitsAndBytesConfig(load_in_8bit=True, **self.model_dump()), dtype, skip)
        bench.save(model)
        done = f"linear layers of the blocks in 8 bits; embeddings, norms and output layer in {dtype}"
        return done + bench.left_out(skip)
