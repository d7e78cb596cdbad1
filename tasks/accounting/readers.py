"""Model type -> how to read its config: what transformers will build from it."""

from __future__ import annotations

from collections.abc import Callable

from tasks.accounting.anatomy import Anatomy
from tasks.accounting.dense import llama
from tasks.models import Config

READERS: dict[str, Callable[[Config], Anatomy]] = {
    "llama": llama,
}
"""transformers' `model_type` -> reader."""


def read(config: Config) -> Anatomy:
    """The anatomy of a config.

    Raises:
        ValueError: no reader knows its model type.
    """
    kind = config.get("model_type", "llama")
    if kind not in READERS:
        raise ValueError(f"model type '{kind}' cannot be accounted for; known: {', '.join(sorted(READERS))}")
    return READERS[kind](config)
