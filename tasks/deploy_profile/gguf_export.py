"""GGUF files from a model folder: the library's writer, name map and quantizers, and what llama.cpp expects of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quant_shape_to_byte_shape, quantize

from tasks.core.errors import UserError
from tasks.deploy_profile import GGUF_ARCHITECTURES
from tasks.deploy_profile.gguf_tokenizer import add_tokenizer
from tasks.deploy_profile.weights import Array, Weights, open_weights
from tasks.models.load import friendly_errors, read_config

ARCHITECTURES = dict(zip(GGUF_ARCHITECTURES, (gguf.MODEL_ARCH.LLAMA,), strict=True))
"""Class in config.json -> llama.cpp's architecture."""

ROTATED = re.compile(r"\.(q|k)_proj\.(weight|bias)$")


@dataclass(frozen=True)
class Exported:
    """One GGUF file. `note` says which tensors are not of the type in its name, and what was done to the weights."""

    path: Path
    type: str
    bytes: int
    note: str


@dataclass(frozen=True)
class _Tensor:
    """What becomes of one tensor."""

    source: str
    name: str
    shape: tuple[int, ...]
    type: Type


class Exporter:
    """Writes a model folder as GGUF, a file per type, holding one tensor at a time.

    Raises:
        UserError: an architecture, a tokenizer or weights that cannot be written so that llama.cpp computes the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.architecture = _architecture(folder)
        self.config = _config(folder)
        self.tied = bool(self.config.tie_word_embeddings)
        self.weights: Weights = open_weights(folder)
        self.names = gguf.get_tensor_name_map(self.architecture, self.config.num_hidden_layers)

    def write(self, out: Path, kind: str, name: str = "model") -> Exported:
        """Write `<name>-<kind>.gguf` into `out`; `kind` as in `deploy_profile.gguf`."""
        path = out / f"{name}-{kind}.gguf"
        tensors = self._plan(Type[kind])
        writer = gguf.GGUFWriter(None, gguf.MODEL_ARCH_NAMES[self.architecture])
        self._add_metadata(writer, kind, name)
        add_tokenizer(writer, self.folder, self.config.vocab_size)
        for tensor in tensors:
            _announce(writer, tensor)
        try:
            writer.write_header_to_file(path)
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in tensors:
                writer.write_tensor_data(self._converted(tensor))
        except OSError as error:
            raise UserError(f"{path}: could not be written: {error}", "free some disk space and run again") from None
        finally:
            writer.close()
        notes = [note for note in (self.weights.note, *_notes(tensors, Type[kind])) if note]
        return Exported(path, kind, path.stat().st_size, "; ".join(notes))

    def _plan(self, kind: Type) -> list[_Tensor]:
        tensors = []
        for source, shape in self.weights.shapes().items():
            if self.tied and source == "lm_head.weight":
                continue
            name = self.names.get_name(source, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise UserError(f"{self.folder}: tensor {source} has no place in a {self.architecture.name} GGUF file")
            tensors.append(_Tensor(source, name, shape, self._type(name, shape, kind)))
        return sorted(tensors, key=lambda tensor: _block(tensor.name))

    def _type(self, name: str, shape: tuple[int, ...], kind: Type) -> Type:
        if len(shape) == 1:
            return Type.F32
        if kind != Type.F16 and shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            return Type.F16
        # llama-quantize too keeps the matrix that makes the logits in more bits than a 4-bit file's others.
        makes_logits = name == "output.weight" or (self.tied and name == "token_embd.weight")
        return Type.Q8_0 if makes_logits and kind == Type.Q4_0 else kind

    def _converted(self, tensor: _Tensor) -> np.ndarray[Any, Any]:
        array = self.weights.read(tensor.source)
        if rotated := ROTATED.search(tensor.source):
            query, key = self.config.num_attention_heads, self.config.num_key_value_heads
            array = interleave(array, query if rotated[1] == "q" else key)
        largest = np.abs(array).max(initial=0.0)
        if not np.isfinite(largest) or (tensor.type != Type.F32 and largest > np.finfo(np.float16).max):
            raise UserError(
                f"{self.folder}: {tensor.source} holds {largest:g}, but GGUF keeps weights and scales in float16",
                "a training that diverged leaves such values",
            )
        data: np.ndarray[Any, Any] = quantize(np.ascontiguousarray(array), tensor.type)
        return data

    def _add_metadata(self, writer: gguf.GGUFWriter, kind: str, name: str) -> None:
        config = self.config
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(name)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_vocab_size(config.vocab_size)
        writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def interleave(array: Array, heads: int) -> Array:
    """Rows of a query or key projection in llama.cpp's order.

    transformers rotates dimension i of a head with dimension i + d/2, llama.cpp with its neighbour (arXiv:2104.09864).
    """
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def _architecture(folder: Path) -> gguf.MODEL_ARCH:
    found = (read_config(folder).get("architectures") or ["none"])[0]
    if found not in ARCHITECTURES:
        raise UserError(
            f"{folder / 'config.json'}: architecture {found} cannot be written as GGUF",
            f"supported: {', '.join(ARCHITECTURES)}; for others set deploy_profile.gguf: [], deploy_profile.serve: "
            "safetensors and deploy_profile.engines: [transformers]",
        )
    return ARCHITECTURES[found]


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    with friendly_errors(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    rope, activation = config.rope_parameters.get("rope_type", "default"), config.hidden_act
    if rope != "default" or activation != "silu":
        raise UserError(
            f"{folder / 'config.json'}: cannot be written as GGUF: rope_type {rope}, hidden_act {activation}",
            "supported: rope_type default, hidden_act silu",
        )
    return config


def _block(name: str) -> int:
    first, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if first == "blk" else -1


def _announce(writer: gguf.GGUFWriter, tensor: _Tensor) -> None:
    if tensor.type in (Type.F32, Type.F16):
        dtype = np.dtype(np.float32 if tensor.type == Type.F32 else np.float16)
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, math.prod(tensor.shape) * dtype.itemsize, tensor.type)
    else:
        shape = quant_shape_to_byte_shape(tensor.shape, tensor.type)
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), math.prod(shape), tensor.type)


def _notes(tensors: list[_Tensor], kind: Type) -> list[str]:
    notes = []
    fallen = [tensor for tensor in tensors if tensor.type == Type.F16 and kind != Type.F16]
    if fallen:
        block = gguf.GGML_QUANT_SIZES[kind][0]
        rows = sorted({tensor.shape[-1] for tensor in fallen})
        notes.append(
            f"{len(fallen)} of {len(tensors)} tensors stay F16: their rows of {', '.join(map(str, rows))} "
            f"don't divide into blocks of {block}"
        )
    other = [tensor.name for tensor in tensors if tensor.type == Type.Q8_0 and kind == Type.Q4_0]
    if other:
        notes.append(f"{other[0]} in Q8_0, as it makes the logits")
    return notes
