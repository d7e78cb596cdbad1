"""Edits of params.yaml: a preset, or `-S name=value`. Checked before anything is written; nothing written is lost."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.environment import WORK
from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import validate
from tasks.params import PATH, Params, flatten, load, override, render

PRESETS = Path("presets")


def apply(preset: str | None, assignments: Sequence[str]) -> list[str]:
    """Rewrite params.yaml: the preset over the defaults, or the file as it is, then the assignments.

    Returns:
        What was done, in sentences; none if the file says it already.

    Raises:
        UserError: an unknown preset or parameter, or a value that isn't allowed; nothing has been written then.
    """
    values = _preset(preset) if preset else load().model_dump(mode="json")
    params = validate(Params, override(values, dict(map(assignment, assignments))))
    text = render(params)
    old = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if text == old or not (preset or assignments):
        return []
    said = [f"{PATH}: {preset or ''}{' with ' if preset and assignments else ''}{', '.join(assignments)}"]
    if old and (preset or old != render(load())):
        kept = _unused(WORK / "params", time.strftime("%Y-%m-%dT%H-%M-%S"))
        _write(kept, old)
        said.append(f"{kept}: the {PATH} that was here")
    _write(PATH, text)
    return said


def _preset(name: str) -> dict[str, Any]:
    """The values of a preset: the defaults, with what its file says in their place."""
    path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in PRESETS.glob("*.yaml"))
        raise UserError(f"--preset {name}: no such preset", f"there are: {', '.join(known) or 'none'}")
    return override(Params().model_dump(mode="json"), dict(flatten(read_yaml(path))))


def assignment(text: str) -> tuple[str, Any]:
    """`finetune.lora.r=16` as a name and a YAML value.

    Raises:
        UserError: it is no assignment, or its value isn't YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise UserError(f"-S {text}: expected NAME=VALUE", "e.g. -S finetune.lora.r=16")
    try:
        return name.strip(), YAML(typ="safe").load(value)
    except YAMLError as error:
        raise UserError(f"-S {text}: {value!r} is not YAML: {' '.join(str(error).split())}") from None


def _unused(folder: Path, name: str) -> Path:
    """A file of that name, numbered where an edit within the same second has taken it."""
    return next(
        path
        for number in itertools.count(1)
        if not (path := folder / f"{name}{f'-{number}' if number > 1 else ''}.yaml").exists()
    )


def _write(path: Path, text: str) -> None:
    """Write atomically: a reader sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
