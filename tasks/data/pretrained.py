"""The tokenizer of an existing model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.schema import Technique
from tasks.models.load import load_tokenizer


class Pretrained(Technique):
    """Reuse the tokenizer of the model in `pretrain.init` (transformers AutoTokenizer)."""

    def make(self, texts: Iterable[str], init: Path) -> Any:
        """The tokenizer of `init`; `texts` isn't read.

        Raises:
            UserError: `init` holds no tokenizer.
        """
        if not (init / "tokenizer.json").exists():
            raise UserError(
                f"data.tokenizer.method 'pretrained' takes the tokenizer of pretrain.init, and {init} has no tokenizer.json",
                "set pretrain.init to a model's folder, or data.tokenizer.method to train",
            )
        return load_tokenizer(init)
