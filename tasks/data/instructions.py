"""Chat examples: the `messages` of records, and from Python sources `function -> first line of its docstring`."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator

from tasks.data.documents import Document

Chat = list[dict[str, str]]
QUESTION = "Write the first line of the docstring of this function.\n\n{code}"
MAX_CODE = 480
ANSWER = range(12, 121)


def chats(documents: list[Document], limit: int) -> list[Chat]:
    """The chat examples of `documents` in their order, at most `limit`."""
    found: list[Chat] = []
    for document in documents:
        if len(found) >= limit:
            break
        if document.messages is not None:
            found.append(document.messages)
        elif document.path.endswith(".py"):
            found += docstring_chats(document.text)
    return found[:limit]


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
