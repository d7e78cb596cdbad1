"""A model that exists already, taken as it is."""

from __future__ import annotations

from pathlib import Path

from tasks.accounting import read
from tasks.core.schema import Technique
from tasks.models import Config
from tasks.models.adapter import refuse_unmerged
from tasks.models.load import read_config


class Existing(Technique):
    """The architecture of the model in `pretrain.init` (transformers AutoConfig)."""

    def blueprint(self, vocab_size: int, init: Path) -> Config:
        """The config of `init`; its own vocabulary must hold `vocab_size` tokens.

        Raises:
            UserError: `init` holds no model, or one that is nothing without the adapter beside it.
            ValueError: it is of a type that can't be accounted for, or its vocabulary is smaller than the tokenizer's.
        """
        refuse_unmerged(init, "pretrain.init")
        config = read_config(init)
        try:
            own = read(config).vocab
        except KeyError as lacking:
            raise ValueError(f"{init}: its config.json lacks {lacking}") from None
        if own < vocab_size:
            raise ValueError(
                f"{init} has a vocabulary of {own}, the tokenizer {vocab_size}: set data.tokenizer.method to pretrained"
            )
        return config
