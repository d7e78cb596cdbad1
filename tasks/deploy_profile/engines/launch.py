"""Starts an engine's fresh process and reads its answer."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tasks
from tasks.core.errors import UserError
from tasks.core.files import write_whole
from tasks.core.process import COMPUTING
from tasks.deploy_profile.engines import Generation, Outcome, Request, Stamp


def launch(name: str, request: Request) -> Outcome:
    """Profile under one engine.

    Raises:
        UserError: what the engine's process says the user can mend, or the signal that ended it.
        RuntimeError: anything else that went wrong in it, with the end of what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tasks.deploy_profile.engines", name],
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        errors="replace",
        env=_environment(),
        check=False,
    )
    if done.returncode == UserError.code:
        raise UserError(**json.loads(_last_line(done.stdout)))
    if done.returncode < 0:
        raise _ended(name, signal.Signals(-done.returncode), done.stderr)
    if done.returncode:
        raise RuntimeError(f"engine {name} failed:\n{done.stderr[-4000:]}")
    return _outcome(json.loads(_last_line(done.stdout)))


def kept(name: str, request: Request, work: Path) -> Outcome:
    """The same, once: an attempt that was stopped leaves under `work` what its engines showed.

    Raises:
        UserError, RuntimeError: as `launch`.
    """
    asked = hashlib.sha256(json.dumps(asdict(request), sort_keys=True).encode()).hexdigest()
    place = work / f"engine-{name}-{asked[:16]}.json"
    if place.exists():
        return _outcome(json.loads(place.read_text(encoding="utf-8")))
    outcome = launch(name, request)
    write_whole(place, json.dumps(asdict(outcome)))
    return outcome


def _ended(name: str, by: signal.Signals, said: str) -> UserError:
    if by == signal.SIGKILL:
        hint = "the system does that when memory runs out: stop other programs, or choose a smaller model"
    else:
        hint = f"take {name} out of deploy_profile.engines to go on without it; its last words: {_last_line(said)!r}"
    return UserError(f"deploy_profile.engines: the process of {name} was ended by {by.name}", hint)


def _environment() -> dict[str, str]:
    root = str(Path(tasks.__file__).parents[1])
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    # what makes the stages quick and small stays theirs: an engine is measured as its users run it
    inherited = {name: value for name, value in os.environ.items() if COMPUTING.get(name) != value}
    return {**inherited, **offline, "PYTHONPATH": path}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _outcome(answer: dict[str, Any]) -> Outcome:
    generations = [
        Generation([Stamp(**stamp) for stamp in entry["stamps"]], entry["cpu_seconds"])
        for entry in answer.pop("generations")
    ]
    return Outcome(generations=generations, **answer)
