"""A stage as `dvc.yaml` declares it: inputs by keyword, parameters, output, report. The one place that reads it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.files import read_yaml

PATH = Path("dvc.yaml")
CODE = "tasks/"
RULER = "evaluate"
"""The parameters by which every stage is judged."""

WHERE = ("node_rank", "rdzv_endpoint")
"""Parameters of `pretrain.parallel` that say where a machine stands and not what is computed: all machines share one key."""


@dataclass(frozen=True)
class Declaration:
    """One stage's entry.

    Attributes:
        inputs: keyword of `run` -> path; what isn't code.
        code: files and folders of the stage's code.
        params: values of the declared parameters, nested as in params.yaml.
        out: what the stage writes.
        history: where its step-by-step history goes, if it has one.
    """

    stage: str
    inputs: dict[str, Path]
    code: list[Path]
    params: dict[str, Any]
    out: Path
    history: Path | None

    def key(self) -> str:
        """Identity of this very work: parameters, inputs and code, by content.

        By what a model is judged changes nothing of what is kept of unfinished work: a task that can't be had may be
        mended, and training goes on. The data stage alone makes something of it, the held-out text.
        """
        params = {name: value for name, value in self.params.items() if name != RULER or self.stage == "data"}
        digest = hashlib.sha256(json.dumps([self.stage, _what(params)], sort_keys=True).encode())
        for path in [*self.inputs.values(), *self.code]:
            for file in _files(path):
                digest.update(file.as_posix().encode())
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()[:16]


def _what(params: dict[str, Any]) -> dict[str, Any]:
    """`params` without those of `WHERE`."""
    pretrain = params.get("pretrain", {})
    if "parallel" not in pretrain:
        return params
    kept = {name: value for name, value in pretrain["parallel"].items() if name not in WHERE}
    return params | {"pretrain": pretrain | {"parallel": kept}}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)


def declare(stage: str, values: dict[str, Any]) -> Declaration:
    """The entry of `stage`, its templates filled in from `values` (params.yaml).

    Raises:
        UserError: no such stage, or an input that isn't there.
    """
    stages = read_yaml(PATH)["stages"]
    if stage not in stages:
        raise UserError(f"'{stage}' is not a stage", f"stages: {', '.join(stages)}")
    entry = stages[stage]
    inputs: dict[str, Path] = {}
    code: list[Path] = []
    for dep in entry["deps"]:
        path = Path(_fill(dep, values))
        if dep.startswith(CODE):
            code.append(path)
        else:
            inputs[_keyword(dep)] = path
    for keyword, path in inputs.items():
        if not path.exists():
            raise UserError(
                f"{stage}: its input '{keyword}' is missing: {path}", "run the stage that makes it, or name another"
            )
    plots = [name for item in entry.get("plots", []) for name in item]
    return Declaration(
        stage=stage,
        inputs=inputs,
        code=code,
        params=_pick(values, [_fill(name, values) for name in entry["params"]]),
        out=Path(entry["outs"][0]),
        history=Path(plots[0]) if plots else None,
    )


def _keyword(dep: str) -> str:
    """`artifacts/data` -> data, `${pretrain.init}` -> init."""
    return dep[2:-1].rpartition(".")[2] if dep.startswith("${") else Path(dep).name


def _fill(text: str, values: dict[str, Any]) -> str:
    """DVC's templating: `${a.b}` becomes the value of that parameter."""
    return re.sub(r"\$\{([\w.]+)\}", lambda match: str(_value(values, match[1])), text)


def _value(values: dict[str, Any], name: str) -> Any:
    current: Any = values
    for part in name.split("."):
        if not isinstance(current, dict) or part not in current:
            raise UserError(
                f"params.yaml: {name} is missing", "`python -m tasks.params` prints the default configuration"
            )
        current = current[part]
    return current


def _pick(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Only the parameters of these dotted names, nested."""
    picked: dict[str, Any] = {}
    for name in names:
        *parents, last = name.split(".")
        block = picked
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = _value(values, name)
    return picked
