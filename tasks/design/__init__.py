"""Stage design: which model, as a transformers config, with what it will cost."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.design.existing import Existing
from tasks.design.llama import Llama


class Design(Choice):
    """The architecture."""

    method: str = "llama"
    """Architecture family, or `existing` to take a model as it is."""
    llama: Llama = Llama()
    existing: Existing = Existing()
