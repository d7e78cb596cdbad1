"""What a compression technique may use: where the original lies, where the result goes, and how to load and save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.models.load import friendly_errors, load_model, load_tokenizer, quiet, save_model


@dataclass(frozen=True)
class Workbench:
    """The place a technique works at.

    Attributes:
        source: the original model's folder; not to be written to.
        out: the folder to write the compressed model to; it exists and is empty.
        data: the data stage's folder, for calibration or training; its held-out text is what the result is measured
            on, so leave that alone.
        seed: of every random choice.
        job: progress, and a folder for checkpoints that outlives a kill.
    """

    source: Path
    out: Path
    data: Path
    seed: int
    job: Job

    def load(self) -> Any:
        """A fresh copy of the original, in the dtype it was saved in."""
        return load_model(self.source)

    def quantize(self, config: Any, dtype: str) -> Any:
        """The original, quantized while it is loaded.

        Args:
            config: a transformers quantization config.
            dtype: of whatever stays unquantized, e.g. "float16".
        """
        import torch
        from transformers import AutoModelForCausalLM

        with friendly_errors(self.source), quiet():
            return AutoModelForCausalLM.from_pretrained(
                self.source,
                quantization_config=config,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
            )

    def save(self, model: Any) -> None:
        """Write `model` and the original's tokenizer to `out`."""
        save_model(model, load_tokenizer(self.source), self.out)
