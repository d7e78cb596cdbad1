"""Chat examples out of Python sources: `function -> first line of its docstring`."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from tasks.data.documents import Document

Chat = list[dict[str, str]]
PYTHON = ".py"
"""How the path of a text ends that chats are made of; a lone file's pieces have none that does."""
QUESTION = "Write the first line of the docstring of this function.\n\n{code}"
MAX_CODE = 480
ANSWER = range(12, 121)


def chats(document: Document) -> Iterator[Chat]:
    """The chat examples that can be made from the text of a document."""
    if document.path.endswith(PYTHON):
        yield from docstring_chats(document.text)


def docstring_chats(source: str) -> Iterator[Chat]:
    """A question and an answer for every short documented function of a Python source; none if it doesn't parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
            answer = (ast.get_docstring(node) or "").strip().partition("\n")[0].strip()
            if len(answer) not in ANSWER:
                continue
            node.body = node.body[1:]
            try:
                code = ast.unparse(node)
            except (ValueError, RecursionError):
                continue
            if len(code) <= MAX_CODE:
                yield [
                    {"role": "user", "content": QUESTION.format(code=code)},
                    {"role": "assistant", "content": answer},
                ]
