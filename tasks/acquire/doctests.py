"""Questions with answers that can be checked: the examples in the docstrings of the interpreter's own standard library."""

from __future__ import annotations

import doctest
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.acquire.maker import Maker

MODULES = (
    "_pydecimal",
    "builtins",
    "collections",
    "difflib",
    "enum",
    "fractions",
    "heapq",
    "http.cookies",
    "json",
    "json.encoder",
    "math",
    "pickle",
    "pickletools",
    "statistics",
    "zipfile",
)
"""Modules whose examples compute, and touch neither files nor screen nor network."""
QUESTION = "What does the last line of this Python session show?\n\n{session}"
MAX_SESSION, MAX_ANSWER = 480, 80


class Doctests(Maker):
    """Doctest examples of the running interpreter's standard library, each run first (Python Software Foundation License)."""

    def identity(self) -> dict[str, Any]:
        """Another interpreter carries other examples."""
        return {"python": sys.version}

    def make(self, out: Path) -> None:
        """Write `doctests.jsonl`: messages, and the answer alone; only answers that this interpreter gives, too."""
        with (out / "doctests.jsonl").open("w", encoding="utf-8") as file:
            for test in _docstrings():
                for session, answer in _questions(test):
                    asked = {"role": "user", "content": QUESTION.format(session=session)}
                    messages = [asked, {"role": "assistant", "content": answer}]
                    row = {"messages": messages, "answer": answer, "of": test.name}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")


class _Runner(doctest.DocTestRunner):
    """Runs examples in silence and keeps those that do as they say."""

    def __init__(self) -> None:
        super().__init__(verbose=False)
        self.right: list[doctest.Example] = []

    def report_success(self, *event: Any) -> None:
        """`event`: out, test, example, what was got."""
        self.right.append(event[2])

    def report_failure(self, *event: Any) -> None:
        """Nothing is said: the example isn't taken."""

    def report_unexpected_exception(self, *event: Any) -> None:
        """Nothing is said either."""


def _docstrings() -> Iterator[doctest.DocTest]:
    """Every docstring with examples, once."""
    seen = set()
    for name in MODULES:
        module = importlib.import_module(name)
        # not by the module itself: `_pydecimal` says it is `decimal`, and nothing in it would count as its own
        for test in doctest.DocTestFinder().find(module, name, module=False, globs=vars(module)):
            if test.docstring not in seen:
                seen.add(test.docstring)
                yield test


def _questions(test: doctest.DocTest) -> Iterator[tuple[str, str]]:
    """Session and answer for every example of a docstring that shows one short line, as long as all before it hold."""
    runner, session = _Runner(), ""
    runner.run(test, out=lambda _: None)
    for example in test.examples:
        if example not in runner.right:
            return
        first, *more = example.source.rstrip("\n").split("\n")
        session += "\n".join([f">>> {first}", *(f"... {line}" for line in more)])
        if len(session) > MAX_SESSION:
            return
        answer = example.want.strip()
        plain = not example.exc_msg and not example.options and "0x" not in answer and "<BLANKLINE>" not in answer
        if plain and "\n" not in answer and 0 < len(answer) <= MAX_ANSWER:
            yield session, answer
        session += f"\n{example.want}" if example.want else "\n"
