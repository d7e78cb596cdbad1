"""What the predictions are about: the text, the model and the machine that `params.yaml` names, before anything has run."""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path

from tasks.acquire import describe, is_descriptor, place
from tasks.acquire.package import Package
from tasks.acquire.stdlib import Stdlib
from tasks.core.errors import UserError
from tasks.ledger.machine import Machine
from tasks.ledger.predict import constants
from tasks.models.accounting import Config, Shape
from tasks.models.load import read_config
from tasks.params import Params

PIECE = 16_384
"""A lone text file is cut into documents of about this many bytes."""


@dataclass(frozen=True)
class Subject:
    """The lifecycle to predict.

    Attributes:
        params: everything a person may turn.
        machine: rates of the machine it will run on.
        raw_bytes: bytes of the text that is used.
        documents: they are cut into.
        vocab: tokens of the vocabulary.
        bytes_per_token: text that one token stands for.
        config: the model's transformers config.
        stored: bytes per weight of the model as pretrain and finetune keep it.
    """

    params: Params
    machine: Machine
    raw_bytes: int
    documents: int
    vocab: int
    bytes_per_token: float
    config: Config
    stored: int

    @property
    def shape(self) -> Shape:
        """The model's sizes."""
        return Shape.of(self.config)

    @property
    def train_tokens(self) -> float:
        """Tokens of the training split."""
        share = 1 - self.params.data.validation_fraction - self.params.data.test_fraction
        return self.raw_bytes * share / self.bytes_per_token

    @property
    def validation_tokens(self) -> float:
        """Tokens of the validation split."""
        return self.raw_bytes * self.params.data.validation_fraction / self.bytes_per_token

    @property
    def heldout_tokens(self) -> float:
        """Tokens of the held-out text that is scored."""
        test = self.raw_bytes * self.params.data.test_fraction
        return min(self.params.evaluate.max_bytes, test) / self.bytes_per_token

    def precision(self, wanted: str) -> str:
        """dtype of the matrix products for `precision: auto | fp32 | bf16`."""
        bf16 = wanted == "bf16" or (wanted == "auto" and self.machine.native_bf16)
        return "bfloat16" if bf16 else "float32"

    @property
    def stored_dtype(self) -> str:
        """dtype of the weights as they are kept between stages."""
        return "float32" if self.stored == 4 else "bfloat16"


def subject(params: Params, machine: Machine) -> Subject:
    """Work out what will be trained on what.

    Raises:
        UserError: the model or the text can't be known yet; says what is missing.
    """
    tokenizer, init = params.data.tokenizer, Path(params.pretrain.init)
    existing = _config_of(init) if params.design.method == "existing" or tokenizer.method == "pretrained" else None
    vocab = tokenizer.train.vocab_size if tokenizer.method == "train" else int((existing or {})["vocab_size"])
    try:
        config = (
            (existing or {}) if params.design.method == "existing" else params.design.technique.blueprint(vocab, init)
        )
        Shape.of(config)
    except ValueError as error:
        raise UserError(f"design.{params.design.method}: {error}") from None
    except KeyError as error:
        raise UserError(f"{init}: its config has no {error}: only Llama-like models can be predicted") from None
    text = source_text(Path(params.data.source)).first(params.data.max_documents)
    stored = 2 if existing is not None and str(_dtype(existing)) in ("bfloat16", "float16") else 4
    rate = bytes_per_token(vocab) if tokenizer.method == "train" else constants.PRETRAINED_BYTES_PER_TOKEN
    return Subject(params, machine, text.bytes, text.documents, vocab, rate, config, stored)


def _dtype(config: Config) -> str | None:
    return config.get("dtype") or config.get("torch_dtype")


def bytes_per_token(vocab: int) -> float:
    """Text per token of a byte-level BPE vocabulary of that size, interpolated between measurements."""
    rows = constants.BYTES_PER_TOKEN
    for (low, below), (high, above) in zip(rows, rows[1:], strict=False):
        if vocab <= high:
            return below + (above - below) * max(0.0, log(vocab / low)) / log(high / low)
    return rows[-1][1]


def _config_of(init: Path) -> Config:
    """The config of `pretrain.init`, read from the package's weights themselves where that is what it names.

    Raises:
        UserError: no model there, or one of the hub that has not been fetched yet.
    """
    if place(init).exists() or not is_descriptor(init):
        return read_config(place(init))
    maker = describe(init)
    if isinstance(maker, Package):
        return _packaged_config(maker.path())
    raise UserError(
        f"pretrain.init '{init}': not fetched yet, so its size is not known", "`leanlm run` fetches it first"
    )


@cache
def _packaged_config(path: Path) -> Config:
    """The shape that a GGUF file declares."""
    from gguf import GGUFReader

    reader = GGUFReader(path)

    def field(name: str) -> int:
        found = reader.get_field(f"llama.{name}")
        if found is None:
            raise UserError(f"{path.name}: the weight file doesn't say {name}")
        return int(found.contents())

    return {
        "model_type": "llama",
        "hidden_size": field("embedding_length"),
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": field("attention.head_count"),
        "num_key_value_heads": field("attention.head_count_kv"),
        "max_position_embeddings": field("context_length"),
        "vocab_size": field("vocab_size"),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "dtype": "bfloat16",
    }


@dataclass(frozen=True)
class Text:
    """How much text there is: bytes, and documents they are cut into."""

    bytes: int
    documents: int

    def __add__(self, other: Text) -> Text:
        """Both together."""
        return Text(self.bytes + other.bytes, self.documents + other.documents)

    def first(self, count: int | None) -> Text:
        """`count` documents of average length, or all."""
        if count is None or count >= self.documents:
            return self
        return Text(self.bytes * count // self.documents, count)


def source_text(source: Path) -> Text:
    """The text in `data.source`; of the interpreter's standard library where that is what it names.

    Raises:
        UserError: there is no such file or folder, or it has not been fetched yet: nothing can be known about it.
    """
    if not source.exists():
        raise UserError(f"data.source '{source}': no such file or folder")
    made = place(source)
    if made.exists():
        source = made
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        return sum((_text(path, alone=len(files) == 1) for path in files), Text(0, 0))
    if isinstance(describe(source), Stdlib):
        return _stdlib_text()
    raise UserError(
        f"data.source '{source}': not fetched yet, so its size is not known", "`leanlm run` fetches it first"
    )


def _text(path: Path, alone: bool) -> Text:
    size = path.stat().st_size
    if path.suffix == ".parquet":
        return _parquet(path, size)
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            start = file.read(1 << 20)
        return Text(size, max(1, size * start.count(b"\n") // max(1, len(start))))
    return Text(size, max(1, size // PIECE) if alone else 1)


def _parquet(path: Path, size: int) -> Text:
    """From the footer: rows, and bytes before compression."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        meta = pq.ParquetFile(path).metadata
    except (OSError, pa.ArrowInvalid):
        return Text(size, 1)
    groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
    plain = sum(group.column(column).total_uncompressed_size for group in groups for column in range(meta.num_columns))
    return Text(plain, max(1, meta.num_rows))


@cache
def _stdlib_text() -> Text:
    """The `.py` files that `tasks.acquire.stdlib` takes, without walking into installed packages."""
    sizes, foreign = [], {"site-packages", "dist-packages", "__pycache__"}
    for folder, folders, names in os.walk(sysconfig.get_paths()["stdlib"]):
        folders[:] = [name for name in folders if name not in foreign]
        sizes += [(Path(folder) / name).stat().st_size for name in names if name.endswith(".py")]
    return Text(sum(sizes), len(sizes))
