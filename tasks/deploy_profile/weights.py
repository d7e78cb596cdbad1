"""The weights of a model folder, one tensor at a time, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import UserError
from tasks.models.load import friendly_errors, load_model, read_config

Array = NDArray[np.float32]


class Weights(Protocol):
    """Tensors by their name in transformers. `note` says what was done to them, or is empty."""

    note: str

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape."""
        ...

    def read(self, name: str) -> Array:
        """One tensor."""
        ...


class _Stored:
    """As they lie in the safetensors files."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self.note = ""
        self.files = {}
        with friendly_errors(folder):
            for path in sorted(folder.glob("*.safetensors")):
                opened: Any = safe_open(path, framework="pt")
                self.files.update(dict.fromkeys(opened.keys(), opened))
        if not self.files:
            raise UserError(f"{folder}: no weights (*.safetensors)", "pickled weights are not read: convert them first")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in self.files.items()}

    def read(self, name: str) -> Array:
        array: Array = self.files[name].get_tensor(name).float().numpy()
        return array


class _Dequantized:
    """Of a quantized checkpoint, multiplied out by transformers (`model.dequantize()`)."""

    def __init__(self, folder: Path, method: str) -> None:
        model = load_model(folder, "float32")
        try:
            model = model.dequantize()
        except (NotImplementedError, ValueError, AttributeError) as error:
            raise UserError(
                f"{folder}: weights quantized by {method} cannot be written as GGUF ({error})",
                "choose another compress.method",
            ) from None
        self.note = f"{method} weights dequantized by transformers first"
        self.state = model.state_dict()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.state.items()}

    def read(self, name: str) -> Array:
        array: Array = self.state[name].float().cpu().numpy()
        return array


def open_weights(folder: Path) -> Weights:
    """The weights of a folder, plain or quantized.

    Raises:
        UserError: no weights, damaged ones, or ones that cannot be dequantized.
    """
    quantization = read_config(folder).get("quantization_config")
    if quantization is None:
        return _Stored(folder)
    return _Dequantized(folder, str(quantization.get("quant_method", "unknown")))
