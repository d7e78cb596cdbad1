"""Flows on a toy project, and what the Prefect server has to say about them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from tasks.params import STAGES
from tests import toy


def prepared(folder: Path, prefect_server: Path) -> Path:
    """`folder` with the tests' Prefect server as its own, and every stage run once."""
    (folder / "work").mkdir()
    (folder / "work" / "servers.json").write_text(prefect_server.read_text())
    assert states(toy.leanlm(folder, "run")) == dict.fromkeys(STAGES, "Completed")
    return folder


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Stage -> Completed or Cached, as `leanlm run` printed it."""
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+) +(Completed|Cached) +[\d.]+ s", done.stdout, re.MULTILINE))


def computed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that were computed."""
    return [stage for stage, state in states(done).items() if state == "Completed"]


def ask(folder: Path, path: str, **body: Any) -> Any:
    """A question to the Prefect server of a project."""
    url = json.loads((folder / "work" / "servers.json").read_text())["prefect"]["url"]
    request = urllib.request.Request(
        f"{url}/api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def last_run(folder: Path) -> Any:
    """The state of the youngest flow run."""
    return ask(folder, "flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]["state"]


def start_and_hang(folder: Path, stage: str) -> subprocess.Popen[str]:
    """`leanlm run` whose `stage` doesn't come to an end, once that stage is at work."""
    log = folder / "work" / "logs" / f"{stage}.log"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "run"],
        cwd=folder,
        env={**toy.ENVIRONMENT, f"TOY_{stage}": "sleep"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and "said on stderr" in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def awaited(question: Any) -> Any:
    """The first answer that isn't empty, within 90 seconds."""
    deadline = time.monotonic() + 90
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return answer


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Seconds and result of a call."""
    began = time.monotonic()
    result = function(*arguments)
    return time.monotonic() - began, result
