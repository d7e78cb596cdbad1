"""No file and no function grows beyond what one can take in at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tasks", "flows", "benchmarks", "tests")
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 250, 40


def too_long(text: str) -> Iterator[str]:
    """What is longer than allowed in a module, decorators and docstrings included."""
    if (lines := len(text.splitlines())) > LINES_OF_A_FILE:
        yield f"{lines} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if (lines := (node.end_lineno or first) - first + 1) > LINES_OF_A_FUNCTION:
                yield f"{node.name}: {lines} lines"


@pytest.mark.parametrize("folder", FOLDERS)
def test_nothing_is_too_long(folder: str) -> None:
    """Files of at most 250 lines, functions of at most 40."""
    files = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / folder).rglob("*.py"))}
    assert files
    found = {name: [*too_long(path.read_text(encoding="utf-8"))] for name, path in files.items()}
    assert {name: words for name, words in found.items() if words} == {}


def test_the_ruler_measures() -> None:
    """One line more than allowed is found, and one that is a decorator counts."""
    body = "    pass\n" * (LINES_OF_A_FUNCTION - 2)
    assert not [*too_long(f"@each\ndef fits():\n{body}")]
    assert [*too_long(f"@each\ndef long():\n    pass\n{body}")] == ["long: 41 lines"]
    assert [*too_long("\n" * 251)] == ["251 lines"]
