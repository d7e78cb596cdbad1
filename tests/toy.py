"""A project whose six stages are one small script: real DVC and real flows around stages that take no time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.core.schema import validate
from tasks.params import STAGES, Params, override, render

REPOSITORY = Path(__file__).resolve().parents[1]

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(REPOSITORY),
    "DVC_NO_ANALYTICS": "true",
    "PATH": os.defpath + ":/usr/local/bin",
}
"""That of a shell in which the project's environment isn't activated."""

STAGE = '''
"""A stage that writes what it read, and a report in the ledger's format. `TOY_<stage>` makes it misbehave."""
import json, os, signal, sys, time
from pathlib import Path

stage = sys.argv[1]
if stage == "stdlib":
    Path("data/stdlib").mkdir(parents=True, exist_ok=True)
    for name in ("a.py", "b.py"):
        Path("data/stdlib", name).write_text("text")
    sys.exit()
print("said on stdout")
print(f"{stage}: said on stderr", file=sys.stderr)
behave, _, message = os.environ.get(f"TOY_{stage}", "").partition(":")
if behave == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if behave == "sleep":
    time.sleep(600)
if behave == "crash":
    raise RuntimeError(message)
if behave:
    Path("work", stage).mkdir(parents=True, exist_ok=True)
    Path("work", stage, "error.txt").write_text(message)
    sys.exit(int(behave))
import dvc.api
declared = dvc.api.params_show(stages=stage)
out = Path("artifacts", stage)
out.mkdir(parents=True)
(out / "out.json").write_text(json.dumps(declared))
counted = {"value": 1234567, "unit": "", "method": "counted"}
report = {
    "stage": stage, "key": "toy", "invocation": os.environ.get("LEANLM_INVOCATION"), "finished": "2026-01-01T00:00:00+00:00",
    "machine": {}, "versions": {}, "metrics": {"parameters": counted}, "predicted": {"parameters": counted},
}
Path("reports").mkdir(exist_ok=True)
Path("reports", f"{stage}.json").write_text(json.dumps(report))
'''


def make(folder: Path) -> Path:
    """Write a toy project into `folder`: the default parameters, the six stages, one raw input that a stage makes."""
    names = list(STAGES)
    stages = ["stages:"]
    for before, name in zip([None, *names], names, strict=False):
        method = "method" in STAGES[name].model_fields
        block = f"{name}.method, '{name}.${{{name}.method}}'" if method else name
        reads = f"artifacts/{before}" if before else "'${data.source}'"
        stages += [
            f"  {name}:",
            f"    cmd: python toy.py {name}",
            f"    deps: [toy.py, {reads}]",
            f"    params: [{block}]",
            f"    outs: [artifacts/{name}]",
            f"    metrics: [reports/{name}.json: {{cache: false}}]",
        ]
    (folder / "data").mkdir(parents=True)
    (folder / "dvc.yaml").write_text("\n".join(stages))
    (folder / "data" / "dvc.yaml").write_text(
        "stages: {stdlib: {cmd: python toy.py stdlib, wdir: .., deps: [toy.py], outs: [data/stdlib]},"
        " unused: {cmd: python toy.py unused, wdir: .., outs: [data/unused]}}"
    )
    (folder / "toy.py").write_text(STAGE)
    set_params(folder, {})
    (folder / "presets").mkdir()
    (folder / "presets" / "small.yaml").write_text("finetune:\n  lora:\n    r: 4\n")
    (folder / ".dvcignore").write_text("__pycache__/\n")
    shell([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], folder)
    return folder


def set_params(folder: Path, assignments: dict[str, Any]) -> None:
    """Write params.yaml: the defaults with these values in their place."""
    values = override(Params().model_dump(mode="json"), {"data.source": "data/stdlib", **assignments})
    (folder / "params.yaml").write_text(render(validate(Params, values)))


def reproduce(folder: Path) -> None:
    """`dvc repro`, by hand, in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = shell([sys.executable, "-m", "dvc", "repro"], folder, PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr


def report(folder: Path, stage: str) -> dict[str, Any]:
    """The report a stage wrote."""
    document: dict[str, Any] = json.loads((folder / "reports" / f"{stage}.json").read_text())
    return document


def shell(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a toy project."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**ENVIRONMENT, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def leanlm(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`leanlm ARGUMENTS` in a toy project."""
    return shell([sys.executable, "-m", "flows", *arguments], folder, **environment)
