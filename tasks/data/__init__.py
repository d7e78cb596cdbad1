"""Stage data: raw text in, token shards, held-out text, chat messages and a tokenizer out."""

from __future__ import annotations

import json

from pydantic import Field, PositiveInt

from tasks.core.schema import Choice, Section
from tasks.data.deduplication import Deduplication
from tasks.data.formats import FormatName
from tasks.data.importance import Importance
from tasks.data.pretrained import Pretrained
from tasks.data.quality import Quality
from tasks.data.train import Train

NONE = "data/none"
"""What stands for an input that isn't there."""


class Tokenizer(Choice):
    """The vocabulary every later stage speaks."""

    method: str = "train"
    """How the tokenizer is come by."""
    train: Train = Train()
    pretrained: Pretrained = Pretrained()


class Data(Section):
    """What the model learns from."""

    source: str = "data/stdlib.yaml"
    """A file or folder of `.txt`, `.md`, `.py`, `.jsonl`, `.json`, `.csv` or `.parquet`, or a `.yaml` that says where to get it."""
    instructions: str = NONE
    """Where chats, preferences and prompts come from, if not from `source`: as there; `data/none`: from `source`."""
    format: FormatName = "auto"
    """What records are (those of `instructions` where it is given): auto (by their fields, file by file), text, messages, prompt_completion, alpaca, sharegpt, question_answer, preference, unpaired or verifiable."""
    text_field: str = "text"
    """Column or key of records that holds the text; other fields hold chats (see `format`)."""
    validation_fraction: float = Field(default=0.02, gt=0, lt=0.5)
    """Share of documents (by hash of their path) kept for validation during training."""
    test_fraction: float = Field(default=0.04, gt=0, lt=0.5)
    """Share of documents kept for the final figures; no stage trains on them."""
    max_documents: PositiveInt | None = None
    """Use only that many documents (by a hash of their path); null: all."""
    max_instructions: PositiveInt = 4000
    """Keep at most this many chat examples, preferences, or prompts for training, and a twentieth for each held-out split."""
    deduplication: Deduplication = Deduplication()
    quality: Quality = Quality()
    importance: Importance = Importance()
    contamination_ngram: PositiveInt | None = 13
    """Count test documents that share that many words in a row with the training text; null: don't look."""
    tokenizer: Tokenizer = Tokenizer()

    @property
    def identity(self) -> str:
        """Everything that decides what the stage writes, as text: techniques that aren't chosen don't."""
        choices = {name: value for name, value in self if isinstance(value, Choice)}
        fields = self.model_dump(mode="json", exclude=set(choices))
        chosen = {name: {made.method: made.technique.model_dump(mode="json")} for name, made in choices.items()}
        return json.dumps(fields | chosen, sort_keys=True)
