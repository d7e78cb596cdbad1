"""The lifecycle as the disk tells it: dvc.lock, and the reports that agree with it. No MLflow here."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import history
from tasks.core.files import read_yaml
from tasks.core.measure import Metrics
from tasks.ledger import report
from tasks.params import STAGES, flatten, load

LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Stage:
    """One stage as dvc.lock records it, with a report that is the one recorded there.

    Attributes:
        identity: SHA-256 of the dvc.lock entry: command, md5 of every dep and out (the report is one), parameters.
        params: dotted name -> value, as dvc.lock has them.
        out: path of what the stage wrote; `out_md5` is its hash in DVC's cache.
    """

    name: str
    identity: str
    command: str
    params: dict[str, Any]
    out: Path
    out_md5: str

    def report(self) -> dict[str, Any]:
        """The stage's report at the prices of params.yaml.

        Raises:
            UserError: params.yaml or the report is damaged.
        """
        return report.read(self.name, load().prices) or {}

    def served(self) -> Path | None:
        """What is delivered, where the stage makes it and it is on disk: a GGUF file, or a folder of safetensors."""
        name = self.params.get("deploy_profile.serve") if self.name == "deploy_profile" else None
        if name == "safetensors":
            return self.out / name if (self.out / name).is_dir() else None
        return min(self.out.glob(f"*-{name}.gguf"), default=None) if name else None


def lifecycle() -> tuple[list[Stage], list[str]]:
    """The stages of the present lifecycle in order, and a sentence for each that can't be counted in.

    A stage counts when dvc.lock and its report are there and agree, and when what it read of the stages before it
    (their outs, the parameters they share) is what those stages now say.

    Raises:
        UserError: dvc.lock is damaged.
    """
    entries = (read_yaml(LOCK).get("stages") or {}) if LOCK.exists() else {}
    written: dict[str, str | None] = {}
    params: dict[str, Any] = {}
    stages, remarks = [], []
    for name in [name for name in STAGES if name in entries]:
        entry = entries[name]
        outs = {out["path"]: out.get("md5", "") for out in entry.get("outs", ())}
        own = {key: value for file in (entry.get("params") or {}).values() for key, value in flatten(file)}
        stale = _stale(entry, written) or _differs(own, params)
        written |= dict.fromkeys(outs) if stale else outs
        if not report.path(name).exists():
            continue
        out = next((path for path in outs if not Path(path).is_relative_to(report.FOLDER)), "")
        absent = "" if Path(out).exists() else f"{out} is not on this machine"
        if reason := stale or absent or _uncommitted(name, outs):
            remarks.append(f"{name}: not published: {reason} (`dvc repro {name}` settles it)")
            continue
        params |= own
        stages.append(Stage(name, _hash(entry), entry["cmd"], own, Path(out), outs.get(out, "")))
    return stages, remarks


def identity_of(stages: list[Stage]) -> str:
    """The identity of a lifecycle: that of its stages together."""
    return _hash([[stage.name, stage.identity] for stage in stages])


def _hash(value: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _stale(entry: Mapping[str, Any], written: Mapping[str, str | None]) -> str:
    for dep in entry.get("deps", ()):
        if dep["path"] in written and written[dep["path"]] != dep.get("md5", ""):
            return f"it was made from another {dep['path']}"
    return ""


def _differs(own: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    for name in own.keys() & params.keys():
        if own[name] != params[name]:
            return f"it was made with {name} = {own[name]!r}, the stages before it with {params[name]!r}"
    return ""


def _uncommitted(name: str, outs: Mapping[str, str]) -> str:
    """Why the files on disk aren't the ones DVC recorded, or ""."""
    if str(report.path(name)) not in outs:
        return f"dvc.lock does not know {report.path(name)}"
    for path in (report.path(name), history.path_of(name)):
        recorded = outs.get(str(path))
        if recorded is None:
            continue
        if not path.exists() or hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != recorded:
            return f"{path} is not the one that dvc.lock records"
    return ""


def unchanged(stage: Stage) -> bool:
    """Whether DVC says that the out of `stage` still holds the bytes it recorded."""
    command = [sys.executable, "-m", "dvc", "status", "--json", stage.name]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        return False
    reasons = json.loads(done.stdout or "{}").get(stage.name, ())
    return not any(str(stage.out) in reason.get("changed outs", ()) for reason in reasons if isinstance(reason, dict))


def commit() -> dict[str, str]:
    """The commit checked out now, and whether tracked files other than DVC's record differ from it; {} outside git."""
    found = _git("rev-parse", "HEAD")
    if not found:
        return {}
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{LOCK}", f":!{report.FOLDER}")
    return {"git.commit": found, "git.dirty": str(bool(changes)).lower(), "mlflow.source.git.commit": found}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def figures(found: Mapping[str, Any]) -> dict[str, float | int]:
    """The figures of a report under names MLflow accepts; `predicted.<name>`, and `ratio.<name>`: measured over predicted."""
    values = {name: value.value for name, value in _named(found).items() if value.value is not None}
    for name, measured in list(values.items()):
        predicted = values.get(f"predicted.{name}")
        if predicted and predicted > 0:
            values[f"ratio.{name}"] = measured / predicted
    return {_legal(name): value for name, value in values.items()}


def tags(stage: Stage, found: Mapping[str, Any]) -> dict[str, str]:
    """What leads from a run back to the exact bytes, the machine and the way each figure was got."""
    named = {
        "leanlm.invocation": found.get("invocation"),
        "dvc.out": stage.out,
        "dvc.out.md5": stage.out_md5,
        "mlflow.source.name": stage.command,
        **{f"machine.{name}": value for name, value in flatten(found.get("machine") or {})},
        **{f"version.{name}": value for name, value in flatten(found.get("versions") or {})},
    }
    for name, value in _named(found).items():
        if value.value is None:
            named[f"missing.{name}"] = value.note or "no reason given"
            continue
        named[f"method.{name}"] = value.method
        if value.note:
            named[f"note.{name}"] = value.note
    return {_legal(name): str(value) for name, value in named.items() if value is not None}


def _named(found: Mapping[str, Any]) -> Metrics:
    return {**found["metrics"], **{f"predicted.{name}": value for name, value in found["predicted"].items()}}


def _legal(name: str) -> str:
    """A slash divides names in MLflow as in the ledger; letters that it refuses become underscores."""
    return posixpath.normpath(re.sub(r"[^A-Za-z0-9_. :/-]", "_", name))
