"""What every page of this project is made with: templates beside the report's style sheet, and an atomic write."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.report.words import title
from tasks.core.errors import UserError


def environment(*folders: Path) -> Any:
    """A jinja2 environment with the templates of `folders`, then those of the report; an unknown name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"title_of": title, "parts": lambda text: re.findall(r"[A-Za-zµ/×]+|[^A-Za-zµ/×]+", text)}
    return made


def save(page: str, target: Path) -> Path:
    """Write a page, atomically, and say where.

    Raises:
        UserError: `target` can't be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(page.encode("utf-8", "replace"))
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{target}: can't be written ({error.strerror})", "give another path, or make room there"
        ) from None
    return target
