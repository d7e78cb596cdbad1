"""The run that a ladder is to predict, and the text both are trained on. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tasks import accounting
from tasks.core.errors import UserError
from tasks.design.family import Family
from tasks.models import Config
from tasks.params import Params
from tasks.scaling.law import data_key

DATA = Path("artifacts/data")


@dataclass(frozen=True)
class Plan:
    """The run that the ladder is to predict, and the text both are trained on.

    Attributes:
        params: everything a person may turn.
        config: transformers config of the planned design.
        bytes_per_token: of the training text.
        distinct_bytes: of the training text.
        data: its identity.
    """

    params: Params
    config: Config
    bytes_per_token: float
    distinct_bytes: float
    data: str

    @property
    def family(self) -> str:
        """The design family."""
        return self.params.design.method

    @property
    def parameters(self) -> int:
        """N of the planned design: active parameters without embeddings."""
        return size_of(self.config)

    @property
    def train_bytes(self) -> float:
        """D of the planned run: bytes of text it sees."""
        pretrain = self.params.pretrain
        return pretrain.steps * pretrain.batch_size * pretrain.context_length * self.bytes_per_token

    def flops(self, config: Config, steps: int) -> float:
        """Training FLOPs of a model over `steps` steps of the planned batch."""
        pretrain = self.params.pretrain
        tokens = steps * pretrain.batch_size * pretrain.context_length
        return tokens * accounting.training_flops_per_token(config, pretrain.context_length)


def size_of(config: Config) -> int:
    """N: active parameters without embeddings."""
    return accounting.active_parameters(config) - accounting.embedding_parameters(config)


def survey(params: Params, data: Path = DATA) -> Plan:
    """What the ladder is for.

    Raises:
        UserError: there is no data yet, or nothing to scale: an existing model, or no training.
    """
    try:
        shards = json.loads((data / "shards.json").read_text(encoding="utf-8"))
        train = shards["splits"]["train"]
        rate, distinct = train["bytes"] / train["tokens"], float(train["bytes"])
        vocab = int(shards["vocab_size"])
    except FileNotFoundError:
        raise UserError(f"{data}: no data to train on yet", "`dvc repro data` makes it from data.source") from None
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{data / 'shards.json'}: damaged ({error!r})", "`dvc repro -f data` makes it again") from None
    technique = params.design.technique
    if not isinstance(technique, Family):
        hint = "a ladder needs a family with sizes: set design.method to one (`leanlm techniques design`)"
        raise UserError(f"design.method: found '{params.design.method}'; an existing model has one size", hint)
    if not params.pretrain.steps:
        raise UserError("pretrain.steps: found 0; there is no training to predict", "set it to what you plan")
    init = Path(params.pretrain.init)
    try:
        config = technique.blueprint(vocab, init)
    except ValueError as error:
        raise UserError(f"design.{params.design.method}: {error}") from None
    return Plan(params, config, rate, distinct, data_key(data))
