"""Quality of a model: bits per byte, loyalty, fidelity, robustness, samples. Its parameters are shared by every stage."""

from __future__ import annotations

from pydantic import PositiveInt

from tasks.core.schema import Section


class Evaluate(Section):
    """How quality is measured, the same for every stage so that stages can be compared."""

    max_bytes: PositiveInt = 131_072
    """Bytes of held-out text that are scored."""
    context_length: PositiveInt = 256
    """Tokens of context a scored token may see at most."""
    batch_size: PositiveInt = 16
    """Sequences per forward pass."""
    sample_tokens: PositiveInt = 48
    """Length of the samples shown before and after each stage."""
