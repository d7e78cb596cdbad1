"""Whether lm-eval knows a task by name, from its files alone: importing lm-eval and listing its tasks takes half a minute."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tasks.evaluate import LOCAL

OTHERS = (".py", ".pyc", ".md", ".json", ".jsonl", ".sh", ".tsv", ".txt", ".jpg")
"""What its files of tasks aren't called; they have many names, for they include one another."""


@cache
def unknown(name: str) -> bool:
    """Whether no task, group or tag of that name is there; what can't be told so is left to lm-eval.

    Args:
        name: as `evaluate.tasks` has it; a local task's is known.
    """
    spec = find_spec("lm_eval")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if name in LOCAL or not folders or not re.fullmatch(r"[\w.-]+", name):
        return False
    # as a whole word behind a key or in a list of them: too much is found rather than too little
    line = re.compile(
        rb"^[ \t{]*(?:-|['\"]?(?:task|group|tag)['\"]?[ \t]*:)(?:[^\n]*[^\w.\n-])?"
        + re.escape(name.encode())
        + rb"(?![\w.-])",
        re.MULTILINE,
    )
    files = (path for path in Path(folders[0], "tasks").rglob("*") if path.suffix not in OTHERS and path.is_file())
    return not any(line.search(path.read_bytes()) for path in files)
