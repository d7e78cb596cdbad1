"""Everything the report tells, read from where the stages left it. What is not there yet is left out, not invented."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.measure import Metrics
from tasks.ledger import report, vocabulary
from tasks.params import STAGES, Params, flatten, load

ARTIFACTS = Path("artifacts")
LOCK = Path("dvc.lock")
_PRIVATE = {"host", "hostname", "node", "user", "username"}
_ABSOLUTE = re.compile(r"(?<![\w.:/~$])/(?:[\w.@+-]+/)+([\w.@+-]*)|\b[A-Za-z]:\\(?:[^\\\s]+\\)*([^\\\s]*)")

Row = dict[str, float]
"""One row of a history: column -> value, empty cells left out."""


@dataclass(frozen=True)
class Lifecycle:
    """One lifecycle as the files tell it; every mapping is keyed by stage, in order, and holds what exists.

    Attributes:
        reports: as `tasks.ledger.report.read` gives them, at the prices of params.yaml, cleared of absolute paths.
        histories: rows in order of steps.
        samples: prompt -> the model's text.
        references: prompt -> the answer that was given, where it is a question; of all stages together, not by stage.
        lock: the stages of dvc.lock.
        blueprint: the transformers config that `design` wrote.
        commit: the git commit, "-dirty" appended where files differ; None outside git.
        damaged: a sentence for each file that is there and can't be read.
    """

    params: Params
    reports: dict[str, dict[str, Any]]
    histories: dict[str, list[Row]]
    samples: dict[str, dict[str, str]]
    references: dict[str, str]
    lock: dict[str, Any]
    blueprint: dict[str, Any]
    commit: str | None
    damaged: list[str]

    @property
    def stages(self) -> list[str]:
        """The stages that have a report."""
        return list(self.reports)

    @property
    def missing(self) -> list[str]:
        """The stages that have none."""
        return [stage for stage in STAGES if stage not in self.reports]

    def metrics(self, stage: str) -> Metrics:
        """What `stage` wrote; empty where there is no report."""
        metrics: Metrics = self.reports[stage]["metrics"] if stage in self.reports else {}
        return metrics

    def value(self, stage: str, name: str) -> float | None:
        """One figure, or None."""
        entry = self.metrics(stage).get(name)
        return None if entry is None else entry.value

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """Dotted name -> value the stages ran with, by dvc.lock."""
        found: dict[str, Any] = {}
        for entry in self.lock.values():
            for block in (entry.get("params") or {}).values():
                found |= dict(flatten(block))
        return found

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Dotted name -> value: as run where dvc.lock says so, else as params.yaml says now."""
        settings = dict(flatten(self.params.model_dump(mode="json"))) | self.recorded
        return {name: cleared(value) for name, value in settings.items()}

    @property
    def changed(self) -> list[str]:
        """Names whose value in params.yaml is no longer what the stages ran with."""
        now = dict(flatten(self.params.model_dump(mode="json")))
        return [name for name, value in self.recorded.items() if name in now and now[name] != value]


def read() -> Lifecycle:
    """Read the lifecycle of the current folder.

    Raises:
        UserError: no stage has a report yet, or params.yaml, a report or dvc.lock is damaged.
    """
    params = load()
    reports = {stage: found for stage in STAGES if (found := _report(stage, params)) is not None}
    if not reports:
        raise UserError(f"{report.FOLDER}/: no stage has written a report yet", "`leanlm run` runs them")
    damaged: list[str] = []
    histories = {stage: rows for stage in reports if (rows := _history(stage, damaged))}
    references: dict[str, str] = {}
    samples = {stage: texts for stage in reports if (texts := _samples(stage, references, damaged))}
    lock = (read_yaml(LOCK).get("stages") or {}) if LOCK.exists() else {}
    blueprint = _json(ARTIFACTS / "design" / "blueprint.json", damaged)
    blueprint = blueprint if isinstance(blueprint, dict) else {}
    return Lifecycle(params, reports, histories, samples, references, lock, blueprint, _commit(), damaged)


def cleared(value: Any) -> Any:
    """`value` with absolute paths in its strings cut down to their last name, so that the page can be passed on."""
    if isinstance(value, str):
        if re.fullmatch(r"(?:file://)?/[^\n]*", value):  # a setting that is a path, with whatever blanks
            return f"…/{Path(value).name}"
        return _ABSOLUTE.sub(lambda match: f"…/{match.group(1) or match.group(2) or ''}", value)
    if isinstance(value, Mapping):
        return {key: cleared(item) for key, item in value.items() if str(key).lower() not in _PRIVATE}
    return [cleared(item) for item in value] if isinstance(value, list | tuple) else value


def _report(stage: str, params: Params) -> dict[str, Any] | None:
    found = report.read(stage, params.prices)
    if found is None:
        return None
    for kind in ("metrics", "predicted"):
        unknown = [name for name in found[kind] if name.partition("/")[0] not in vocabulary.VOCABULARY]
        if unknown:
            hint = f"`dvc repro -f {stage}` measures it again"
            raise UserError(f"{report.path(stage)}: metric '{unknown[0]}' isn't in the vocabulary", hint)
        found[kind] = {name: replace(value, note=cleared(value.note)) for name, value in found[kind].items()}
    machine, versions = (cleared(found.get(name) or {}) for name in ("machine", "versions"))
    return {**found, "machine": machine, "versions": versions}


def _history(stage: str, damaged: list[str]) -> list[Row]:
    path = report.FOLDER / "history" / f"{stage}.csv"
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_numbers(row) for row in csv.DictReader(file)]
    except (ValueError, csv.Error) as error:
        damaged.append(f"{path.as_posix()} is damaged ({error}).")
        return []
    return [row for row in rows if "step" in row and "loss" in row]


def _numbers(row: Mapping[str | Any, str | Any]) -> Row:
    found = {name: float(text) for name, text in row.items() if name and text}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _samples(stage: str, references: dict[str, str], damaged: list[str]) -> dict[str, str]:
    """Prompt -> text; the answers that were given go into `references`."""
    path = ARTIFACTS / stage / "samples.json"
    entries = _json(path, damaged)
    try:
        found = {str(entry["prompt"]): str(entry["text"]) for entry in entries or []}
        references |= {str(entry["prompt"]): str(entry["reference"]) for entry in entries or [] if "reference" in entry}
    except (KeyError, TypeError) as error:
        damaged.append(f"{path.as_posix()} is damaged ({error!r}).")
        return {}
    return found


def _json(path: Path, damaged: list[str]) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        damaged.append(f"{path.as_posix()} is damaged ({error}).")
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
