"""Metrics of one answer, each from 0 to 1, higher is better."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

from tasks.evaluate import CHATS, CODE, VERIFIABLE
from tasks.evaluate.sandbox import Verdict, passes

REASONS = {"AssertionError": "wrong", "time": "out of time", "killed": "killed (memory or time)"}
"""How a program ended -> in words; other errors have their names."""
MOST = 6
"""Ways to end that are told apart."""
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


def pass_at_1(answer: str, tests: str, verdicts: list[Verdict] | None = None) -> float:
    """Whether the first program a model writes passes its tests (arXiv:2107.03374, k = 1), in `sandbox`.

    Args:
        answer: a model's.
        tests: statements that raise where the program is wrong.
        verdicts: where how it ended is put down.
    """
    found = passes(program(answer), tests)
    if verdicts is not None:
        verdicts.append(found)
    return float(found.passed)


def told(verdicts: Iterable[Verdict]) -> str:
    """How programs ended, the commonest first, and what confined them; "" of none.

    What a program says of itself may be anything: a reason that is no name of an error is not repeated.
    """
    ends, guards = Counter[str](), set[str]()
    for verdict in verdicts:
        why = verdict.why if verdict.why.isidentifier() else "no verdict"
        ends["passed" if verdict.passed else REASONS.get(why, why)] += 1
        guards |= {verdict.guard} - {""}
    if not ends:
        return ""
    shown = dict(ends.most_common(MOST))
    others = {"other": ends.total() - sum(shown.values())} if len(ends) > MOST else {}
    said = ", ".join(f"{count} {end}" for end, count in {**shown, **others}.items())
    return f"{said}; confined by {' and '.join(f'the {guard}' for guard in sorted(guards)) or 'limits alone'}"


Metric = Callable[[str, str], float]

METRICS: dict[str, dict[str, Metric]] = {
    CHATS: {"exact_match": exact_match, "rouge_l": rouge_l, "chrf": chrf},
    VERIFIABLE: {"exact_match": exact_match},
    CODE: {"pass_at_1": pass_at_1},
}
"""Local task -> its metrics: functions of an answer and what it is held against, the reference or the tests."""


def measures(task: str, verdicts: list[Verdict]) -> dict[str, Metric]:
    """Metrics of a local task; how its programs end is put down in `verdicts`."""
    noted = partial(pass_at_1, verdicts=verdicts)
    return {name: noted if metric is pass_at_1 else metric for name, metric in METRICS[task].items()}
