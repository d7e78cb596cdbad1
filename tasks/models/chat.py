"""A chat as the text a model sees."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

UNDATED = datetime(2024, 1, 1, tzinfo=UTC)
"""The date that templates are told: some write today's, and tomorrow's run must see the same tokens."""


def chat_text(tokenizer: Any, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """The tokenizer's chat template filled in.

    Raises:
        jinja2.TemplateError: the template refuses these messages (two questions in a row, a system message).
    """
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, strftime_now=UNDATED.strftime
    )
    return str(text)
