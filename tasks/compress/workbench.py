"""What a compression technique may use: where the original lies, where the result goes, and how to load and save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.models.load import load_model, load_tokenizer, outline, read_config, save_model
from tasks.models.quantized import load_quantized


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

    def quantize(self, config: Any, dtype: str, skip: Sequence[str] = ()) -> Any:
        """The original, quantized while it is loaded.

        Args:
            config: a transformers quantization config.
            dtype: of whatever stays unquantized, e.g. "float16".
            skip: names of linear layers to leave as they are, beside the output layer.

        Raises:
            UserError: the original is quantized already.
        """
        if found := read_config(self.source).get("quantization_config"):
            raise UserError(
                f"compress: {self.source} holds weights quantized by {found.get('quant_method')} already",
                "set compress.method to none",
            )
        return load_quantized(self.source, config, dtype, skip)

    def outline(self) -> Any:
        """The original without weights: names and shapes (torch's meta device)."""
        return outline(read_config(self.source))

    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Name -> (inputs, outputs) of every linear module but the output layer."""
        import torch

        model = self.outline()
        output = model.get_output_embeddings()
        modules = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]
        return {name: (module.in_features, module.out_features) for name, module in modules}

    def left_out(self, skip: Sequence[str] = ()) -> str:
        """Which matrices a technique for linear layers leaves as they are, and how much of the model; "" if none.

        Experts lie in tensors of three dimensions, which quantizers of linear modules pass by.
        """
        model = self.outline()
        done = self.linear_layers().keys() - set(skip)
        ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
        left: Counter[str] = Counter()
        for name, weight in model.named_parameters():
            matrix = sum(size > 1 for size in weight.shape) > 1 and id(weight) not in ends
            if matrix and name.removesuffix(".weight") not in done:
                left[".".join(name.removesuffix(".weight").split(".")[-2:])] += weight.numel()
        if not left:
            return ""
        total = sum(weight.numel() for weight in model.parameters())
        return f"; {', '.join(sorted(left))} left as they are: {left.total() / total:.0%} of the parameters"

    def save(self, model: Any) -> None:
        """Write `model` and the original's tokenizer to `out`."""
        save_model(model, load_tokenizer(self.source), self.out)
