"""Rewards that can be verified: what an answer is worth, beside the one that is known to be right. From 0 to 1 each."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from typing import Any

Reward = Callable[[str, str], float]
"""What was said, and what is right -> its worth."""

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")


def exact_match(said: str, right: str) -> float:
    """1 for the right answer and nothing else, but for space around it."""
    return float(said.strip() == right.strip())


def last_line_match(said: str, right: str) -> float:
    """1 where the last line is the right answer, whatever was said before."""
    return exact_match((said.strip().splitlines() or [""])[-1], right)


def numeric_match(said: str, right: str) -> float:
    """1 where the last number said is the last number of the right answer; 0 where either has none."""
    found, wanted = (NUMBER.findall(text) for text in (said, right))
    if not found or not wanted:
        return 0.0
    return float(float(found[-1].replace(",", "")) == float(wanted[-1].replace(",", "")))


def similarity(said: str, right: str) -> float:
    """Share of characters in common, in their order (difflib's ratio): something to climb while nothing is right yet."""
    return SequenceMatcher(None, said.strip(), right.strip(), autojunk=False).ratio()


REWARDS: dict[str, Reward] = {
    reward.__name__: reward for reward in (exact_match, last_line_match, numeric_match, similarity)
}
"""Name in `finetune.objective.grpo.rewards` -> reward."""


def told(reward: Reward) -> Callable[..., list[float]]:
    """A reward as trl's trainers call it: one figure for every completion, beside its row's `answer`."""

    def of(completions: list[list[dict[str, str]]], answer: list[str], **_: Any) -> list[float]:
        return [reward(said[-1]["content"], right) for said, right in zip(completions, answer, strict=True)]

    of.__name__ = reward.__name__
    return of
