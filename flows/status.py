"""What would run and why, as DVC sees it: its one verdict, with the old and new value of every parameter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.params import PATH, STAGES, flatten

Kind = Literal["new", "command", "parameter", "input", "output", "upstream"]


@dataclass(frozen=True)
class Reason:
    """One difference that makes a stage stale.

    Attributes:
        kind: what differs; `upstream` is a stage that comes first, `new` a stage that has never run here.
        name: the parameter, path or stage.
        change: DVC's word: modified, deleted, new, not in cache.
        before: a parameter's value at the last run, None if it had none.
        after: its value now.
    """

    kind: Kind
    name: str
    change: str = ""
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        if self.kind == "parameter":
            return f"{self.name}: {json.dumps(self.before)} -> {json.dumps(self.after)}"
        sentences = {
            "new": "has never run here",
            "command": "its command in dvc.yaml is another",
            "input": f"{self.name}: {self.change}",
            "output": f"{self.name}: {self.change} (restored where the cache has it)",
            "upstream": f"{self.name} comes first, and may change what it reads",
        }
        return sentences[self.kind]


Stale = dict[str, list[Reason]]
"""Stage -> why it isn't up to date, upstream first. Other inputs are named as DVC names them, e.g. `data/text.dvc`."""


def stale() -> Stale:
    """Everything between the raw inputs and the last stage that may have to run. One call of `dvc status`.

    Raises:
        UserError: DVC can't read the project.
    """
    verdict = _ask_dvc()
    locked = read_yaml(Path("dvc.lock")).get("stages", {}) if Path("dvc.lock").exists() else {}
    outs = {name: _outs(entry) for name, entry in _stages().items()}
    found: Stale = {}
    for stage in sorted(verdict, key=lambda name: list(STAGES).index(name) if name in STAGES else -1):
        if stage in STAGES and stage not in locked:
            found[stage] = [Reason("new", stage)]
        else:
            found[stage] = _reasons(verdict[stage], locked.get(stage, {}))
    for stage in STAGES:
        reads = [entry["path"] for entry in locked.get(stage, {}).get("deps", [])]
        upstream = [Reason("upstream", name) for name in found if _overlap(outs.get(name, []), reads)]
        if upstream:
            made = {path for reason in upstream for path in outs[reason.name]}
            found[stage] = [reason for reason in found.get(stage, []) if reason.name not in made] + upstream
    order = [name for name in found if name not in STAGES] + [name for name in STAGES if name in found]
    return {name: found[name] for name in order}


def refuse_missing(found: Stale) -> None:
    """Refuse a run that would fail for want of an input no stage makes.

    Raises:
        UserError: the missing path, who reads it and the parameter that names it.
    """
    stages = _stages()
    made = [path for entry in stages.values() if "cmd" in entry for path in _outs(entry)]
    values = dict(flatten(read_yaml(PATH)))
    for stage in (name for name in found if name in stages):
        for path in _inputs(stages[stage], values):
            if not Path(path).exists() and not _overlap(made, [path]):
                named = [name for name, value in values.items() if value == path]
                tracked = [name for name, entry in stages.items() if "cmd" not in entry and path in _outs(entry)]
                hint = f"`{named[0]}` in {PATH} names it" if named else "restore it from git"
                hint = f"`dvc checkout {tracked[0]}` or `dvc pull {tracked[0]}` brings it back" if tracked else hint
                raise UserError(f"{path}: not found, and {stage} reads it", hint)


def to_json(found: Stale) -> str:
    """`found` for programs."""
    return json.dumps({stage: [asdict(reason) for reason in reasons] for stage, reasons in found.items()}, indent=1)


def _ask_dvc() -> dict[str, list[Any]]:
    command = [sys.executable, "-m", "dvc", "status", "--json", "--with-deps", *STAGES]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        hint = "clone it with git, or run `git init` here" if "not a git repository" in answer.stderr else ""
        raise UserError(f"DVC cannot read this project: {answer.stderr.strip()}", hint)
    verdict: dict[str, list[Any]] = json.loads(answer.stdout)
    return verdict


def _reasons(differences: list[Any], locked: Mapping[str, Any]) -> list[Reason]:
    """DVC's differences of one stage in our words."""
    reasons: list[Reason] = []
    for difference in differences:
        if not isinstance(difference, dict):
            reasons.append(Reason("command", "cmd", str(difference)))
            continue
        for name, change in difference.get("changed deps", {}).items():
            if name == str(PATH):
                reasons += _parameters(change, locked.get("params", {}).get(str(PATH), {}))
            else:
                reasons.append(Reason("input", name, change))
        reasons += [Reason("output", name, change) for name, change in difference.get("changed outs", {}).items()]
    return reasons


def _parameters(change: dict[str, str] | str, locked: Mapping[str, Any]) -> list[Reason]:
    """The leaves under the changed names whose value isn't the one of the last run."""
    if isinstance(change, str):
        return [Reason("input", str(PATH), change)]
    now, before = dict(flatten(read_yaml(PATH))), dict(flatten(locked))
    names = [
        name
        for name in dict.fromkeys([*now, *before])
        if any(name == changed or name.startswith(f"{changed}.") for changed in change)
    ]
    return [
        Reason("parameter", name, "modified", before.get(name), now.get(name))
        for name in names
        if before.get(name) != now.get(name)
    ]


def _stages() -> dict[str, dict[str, Any]]:
    """Every stage, and every input that `dvc add` tracks, by DVC's address; `wdir` is relative to the project."""
    result = {}
    for file in [*Path().glob("*.dvc"), *Path("data").rglob("*.dvc")]:
        if file.is_file():
            outs = [out["path"] for out in read_yaml(file).get("outs", [])]
            result[file.as_posix()] = {"outs": outs, "wdir": os.path.normpath(file.parent)}
    for file in [Path("dvc.yaml"), *sorted(Path().glob("*/dvc.yaml"))]:
        prefix = "" if file.parent == Path() else f"{file.as_posix()}:"
        for name, entry in read_yaml(file).get("stages", {}).items():
            result[f"{prefix}{name}"] = {**entry, "wdir": os.path.normpath(file.parent / entry.get("wdir", "."))}
    return result


def _outs(entry: Mapping[str, Any]) -> list[str]:
    """The paths a stage makes."""
    names = [next(iter(out)) if isinstance(out, dict) else out for out in entry.get("outs", [])]
    return [os.path.normpath(Path(entry["wdir"], name)) for name in names]


def _inputs(entry: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """The paths a stage reads, `${...}` replaced by the parameter's value."""
    import re

    named = [re.sub(r"\$\{([^}]+)\}", lambda match: str(values.get(match[1])), dep) for dep in entry.get("deps", [])]
    return [os.path.normpath(Path(entry["wdir"], dep)) for dep in named]


def _overlap(some: list[str], others: list[str]) -> bool:
    """Whether a path of one list is, holds or lies in a path of the other."""
    return any(a == b or Path(a) in Path(b).parents or Path(b) in Path(a).parents for a in some for b in others)
