"""What the predictions are about: text, model and machine as `params.yaml` names them, before anything has run."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log, prod
from pathlib import Path

from tasks import accounting
from tasks.accounting import Anatomy, read
from tasks.acquire import describe, is_descriptor, place
from tasks.acquire.package import Package
from tasks.core.errors import UserError
from tasks.ledger.machine import Machine
from tasks.ledger.predict import constants
from tasks.ledger.predict.packaged import packaged_config
from tasks.ledger.predict.text import FETCHED, Text, source_text
from tasks.models import Config
from tasks.models.load import read_config
from tasks.params import Params


@dataclass(frozen=True)
class Subject:
    """The lifecycle to predict.

    Attributes:
        params: everything a person may turn.
        machine: rates of the machine it will run on.
        source_bytes: bytes of all text in the source.
        raw_bytes: bytes of the text that is used.
        documents: they are cut into.
        vocab: tokens of the vocabulary.
        bytes_per_token: text that one token stands for.
        chat_bytes_per_token: the same in chats.
        config: the model's transformers config.
        stored: bytes per weight of the model as pretrain and finetune keep it.
        teacher: config of the model a distillation learns from.
    """

    params: Params
    machine: Machine
    source_bytes: int
    raw_bytes: int
    documents: int
    vocab: int
    bytes_per_token: float
    chat_bytes_per_token: float
    config: Config
    stored: int
    teacher: Config | None = None

    @property
    def anatomy(self) -> Anatomy:
        """What the model is made of."""
        return read(self.config)

    @property
    def model_type(self) -> str:
        """The architecture, by the name transformers has for it."""
        return str(self.config.get("model_type", "llama"))

    def technique(self, stage: str) -> str:
        """What a stage is told to use: runs of the same technique resemble each other."""
        params = self.params
        return {
            "data": params.data.tokenizer.method,
            "pretrain": self.precision(params.pretrain.precision),
            "finetune": " ".join(
                [
                    params.finetune.method,
                    *([] if params.finetune.objective.technique.of_chats else [params.finetune.objective.method]),
                    self.precision(params.finetune.precision),
                ]
            ),
            "compress": params.compress.method,
            "deploy_profile": " ".join(params.deploy_profile.engines),
        }.get(stage, "")

    @property
    def adapter_bytes(self) -> int:
        """Of the file an adapter is delivered in; 0 where there is none."""
        tuned = self.params.finetune
        if not tuned.steps:
            return 0
        tensors = tuned.technique.delivered(self.config, self.stored, tuned.steps, self.params.seed)
        return sum(element * prod(shape) + constants.TENSOR_HEADER_BYTES for shape, element in tensors)

    @property
    def weight_bytes(self) -> int:
        """Of the finetuned model as it is kept, with the adapter where that stays beside it."""
        beside = 0 if self.params.finetune.technique.merges else self.adapter_bytes
        return accounting.parameters(self.config) * self.stored + beside

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
        """Type of the matrix products for a `precision`, as rates are known for it: fp16 and fp8 go as bfloat16."""
        half = wanted not in ("auto", "fp32") or (wanted == "auto" and self.machine.native_bf16)
        return "bfloat16" if half else "float32"

    @property
    def stored_dtype(self) -> str:
        """Type of the weights as they are kept between stages."""
        return "float32" if self.stored == 4 else "bfloat16"


def subject(params: Params, machine: Machine, source: Text | None = None) -> Subject:
    """Work out what will be trained on what; `source`: the text of `data.source`, where it has been looked at already.

    Raises:
        UserError: the model or the text can't be known yet; says what is missing.
    """
    config, vocab, existing = _model(params)
    source = source or source_text(Path(params.data.source))
    text = source.first(params.data.max_documents)
    stored = 2 if existing is not None and str(_dtype(existing)) in ("bfloat16", "float16") else 4
    rate = chats = bytes_per_token(vocab)
    if params.data.tokenizer.method != "train":
        rate, chats = constants.PRETRAINED_BYTES_PER_TOKEN
    taught = params.pretrain.steps and params.pretrain.objective.method == "distillation"
    teacher = config_of(Path(params.pretrain.teacher), "pretrain.teacher") if taught else None
    return Subject(
        params, machine, source.bytes, text.bytes, text.documents, vocab, rate, chats, config, stored, teacher
    )


def config_for(params: Params) -> Config:
    """The transformers config of the model that `params` lead to.

    Raises:
        UserError: the model it starts from isn't there yet, or the sizes don't go together.
    """
    return _model(params)[0]


def _model(params: Params) -> tuple[Config, int, Config | None]:
    """Config, tokens of the vocabulary, and the config of the model that is there already, if one is needed."""
    tokenizer, init = params.data.tokenizer, Path(params.pretrain.init)
    existing = config_of(init) if params.design.method == "existing" or tokenizer.method == "pretrained" else None
    try:
        vocab = tokenizer.train.vocab_size if tokenizer.method == "train" else int((existing or {})["vocab_size"])
        config = (
            (existing or {}) if params.design.method == "existing" else params.design.technique.blueprint(vocab, init)
        )
        read(config)
    except ValueError as error:
        raise UserError(f"design.{params.design.method}: {error}") from None
    except KeyError as error:
        raise UserError(f"{init}: its config has no {error}: only Llama-like models can be predicted") from None
    return config, vocab, existing


def _dtype(config: Config) -> str | None:
    return config.get("dtype") or config.get("torch_dtype")


def bytes_per_token(vocab: int) -> float:
    """Text per token of a byte-level BPE vocabulary of that size, interpolated between measurements."""
    rows = constants.BYTES_PER_TOKEN
    for (low, below), (high, above) in pairwise(rows):
        if vocab <= high:
            return below + (above - below) * max(0.0, log(vocab / low)) / log(high / low)
    return rows[-1][1]


def config_of(model: Path, name: str = "pretrain.init") -> Config:
    """The config of `pretrain.init`, or of another `name`; as the packaged weights declare it where they have not been made a folder yet."""
    folder = place(model)
    maker = describe(model) if is_descriptor(model) and not folder.exists() else None
    if isinstance(maker, Package):
        return packaged_config(maker.path())
    if maker is not None:
        raise UserError(f"{name} '{model}': not fetched yet, so its shape is not known", FETCHED)
    return read_config(folder)
