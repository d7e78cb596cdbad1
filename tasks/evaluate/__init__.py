"""Quality of a model: bits per byte, tasks, loyalty, fidelity, robustness, samples. Its parameters are shared by every stage."""

from __future__ import annotations

from pydantic import PositiveInt

from tasks.core.schema import Section

SAMPLES, SCORE = "samples.json", "score.json"
BESIDE = (SAMPLES, SCORE)
"""What judging a model leaves in its folder; no part of the model."""

CHATS, VERIFIABLE, CODE = "chats", "verifiable", "code"
LOCAL = (CHATS, VERIFIABLE, CODE)
"""Tasks that need no network."""


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
    tasks: tuple[str, ...] = ()
    """Tasks a model is judged by: chats, verifiable (both: held-out answers of the data), code (its programs are run), or lm-eval's by name, from the hub."""
    task_examples: PositiveInt = 16
    """Examples per task, spread evenly over those there are."""
    task_tokens: PositiveInt = 32
    """Longest answer in the tasks chats, verifiable and code; code wants 256."""
