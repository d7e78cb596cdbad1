"""Metrics of one answer, each from 0 to 1, higher is better."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from tasks.evaluate import CHATS, CODE, VERIFIABLE
from tasks.evaluate.sandbox import passes

FENCED = re.compile(r"```(?:[Pp]ython|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def exact_match(answer: str, reference: str) -> float:
    """Whether the two are the same text, white space around them aside."""
    return float(answer.strip() == reference.strip())


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (rouge-score, no stemmer)."""
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)


def chrf(answer: str, reference: str) -> float:
    """F-score of character n-grams up to 6 (sacrebleu's chrF2): for every script, and for near misses."""
    from sacrebleu import sentence_chrf

    return float(sentence_chrf(answer, [reference]).score) / 100


def program(answer: str) -> str:
    """The Python in an answer: its first fenced block, closed or not, or else all of it."""
    found = FENCED.search(answer)
    return found[1] if found else answer


def pass_at_1(answer: str, tests: str) -> float:
    """Whether the first program a model writes passes its tests (arXiv:2107.03374, k = 1), in `sandbox`."""
    return float(passes(program(answer), tests).passed)


Metric = Callable[[str, str], float]

METRICS: dict[str, dict[str, Metric]] = {
    CHATS: {"exact_match": exact_match, "rouge_l": rouge_l, "chrf": chrf},
    VERIFIABLE: {"exact_match": exact_match},
    CODE: {"pass_at_1": pass_at_1},
}
"""Local task -> its metrics: functions of an answer and what it is held against, the reference or the tests."""
