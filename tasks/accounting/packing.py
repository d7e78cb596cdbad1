"""Whether several sequences may lie in one row without knowing of each other: a question to the config alone."""

from __future__ import annotations

from tasks.accounting.attention import Attention
from tasks.accounting.readers import read
from tasks.models import Config


def unpackable(config: Config, longest: int) -> str:
    """Why sequences of up to `longest` tokens can't share a row of this model, for a person; "" if they can.

    A mask keeps attention within a sequence. The state of a recurrence runs on from one to the next, and the mask
    stands in the place of a window's.
    """
    kind = config.get("model_type", "llama")
    try:
        mixings = [part for block in read(config).blocks for part in block.mixings]
    except ValueError:
        return f"nothing is known of how {kind} mixes tokens"
    if not all(isinstance(part, Attention) for part in mixings):
        return f"{kind} has recurrent layers, whose state runs on from one text to the next"
    narrow = [part.window for part in mixings if isinstance(part, Attention) and part.window is not None]
    if narrow and min(narrow) < longest:
        return f"{kind} has layers with a window of {min(narrow)} tokens, fewer than a text may have ({longest})"
    return ""
