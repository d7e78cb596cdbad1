"""bitsandbytes' LLM.int8: weights in 8 bits by row, activations with outlier features kept apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat

from tasks.core.schema import Technique

if TYPE_CHECKING:
    from tasks.compress.workbench import Workbench


class Int8(Technique):
    """8-bit weights and activations with outliers kept apart (arXiv:2208.07339)."""

    llm_int8_threshold: NonNegativeFloat = 6.0
    """Activations above this are multiplied in higher precision; 0: none are."""

    def apply(self, bench: Workbench) -> str:
        """Quantize the linear layers of the blocks."""
        from transformers import BitsAndBytesConfig

        # float16, because the kernel casts every other input to it anyway and logs a line each time it does
        model = bench.quantize(BitsAndBytesConfig(load_in_8bit=True, **self.model_dump()), dtype="float16")
        bench.save(model)
        return "linear layers of the blocks in 8 bits; embeddings, norms and output layer in float16"
