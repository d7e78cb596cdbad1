"""Robustness: bits per byte of the held-out text when it is typed with errors."""

from __future__ import annotations

import random
import string
from typing import Any

from tasks.core.job import Job
from tasks.evaluate import Evaluate
from tasks.evaluate.text import score

RATE = 0.02
NOTE = (
    f"{RATE:.0%} of the characters other than white space swapped with the next, dropped or replaced by a letter; "
    "bits per byte of the text as mistyped"
)


def mistype(text: str, seed: int | str, rate: float = RATE) -> str:
    """`text` with typing errors, the same ones for the same seed.

    Args:
        text: any text; its white space is left alone.
        seed: of the errors.
        rate: probability of an error at a character; the three kinds are equally likely.
    """
    dice = random.Random(seed)
    typed: list[str] = []
    at = 0
    while at < len(text):
        character, following = text[at], text[at + 1 : at + 2]
        at += 1
        if character.isspace() or dice.random() >= rate:
            typed.append(character)
            continue
        kind = dice.choice(("swap", "drop", "replace"))
        if kind == "swap" and following.strip():
            typed += [following, character]
            at += 1
        elif kind == "replace":
            typed.append(dice.choice([letter for letter in string.ascii_lowercase if letter != character]))
    return "".join(typed)


def robustness(model: Any, tokenizer: Any, texts: list[str], params: Evaluate, seed: int, job: Job) -> float:
    """Bits per byte of the mistyped `texts`, per byte of what is scored: the mistyped text itself.

    Raises:
        UserError: nothing is left to score.
    """
    mistyped = [mistype(text, f"{seed} {index}") for index, text in enumerate(texts)]
    return score(model, tokenizer, [text for text in mistyped if text], params, job).bits_per_byte
