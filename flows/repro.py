"""`dvc repro` of one stage in a child process, and the words for what went wrong in it."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import child
from flows.environment import WORK
from flows.locked import locked
from tasks.core.errors import UserError

RUNNING = WORK / "running.json"
TRAININGS = ("pretrain", "finetune")
"""The stages that keep checkpoints; the others begin anew."""
_DVC_SAYS = re.compile(
    r"(\x1b\[\d+m)*ERROR(\x1b\[\d+m)*: .*exited with|Running stage|Stage '|> |(Updating|Generating) lock"
)


class StageFailed(UserError):
    """A stage ended with an error; `code` is its exit code."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        super().__init__(message, hint)
        self.code = code


@contextmanager
def alone() -> Iterator[None]:
    """One lifecycle at a time in one project folder.

    Raises:
        UserError: another one is running.
    """
    with locked(WORK / "run.lock", 0, "another run is going on in this folder", "wait until it has ended, or stop it"):
        if child.stop_orphan(RUNNING):
            sys.stderr.write(
                "a killed run had left its stage at work; it is stopped; a training goes on from its checkpoint\n"
            )
        yield


def bring_up(stage: str, invocation: str, bench: Path | None = None) -> None:
    """Bring `stage` and the raw inputs it needs up to date; what runs stamps its report with `invocation`.

    Args:
        stage: its name in dvc.yaml.
        invocation: of the run that asks.
        bench: another project folder; there the stage is brought up alone, whatever comes before it.

    Raises:
        StageFailed: with the stage's own words and exit code.
    """
    log, error = WORK / "logs" / f"{stage}.log", (bench or Path()) / WORK / stage / "error.txt"
    error.unlink(missing_ok=True)
    command = [sys.executable, "-m", "dvc", "repro", *(["--single-item"] if bench else []), stage]
    told = {"LEANLM_INVOCATION": invocation, "PYTHONUNBUFFERED": "1"}
    code = child.run(command, log, RUNNING, told, bench)
    if code != 0:
        raise _failure(stage, code, log, error)


def _failure(stage: str, code: int, log: Path, error: Path) -> StageFailed:
    """What to tell the person, from the message the stage left, else from the end of its log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    exits = re.findall(r"exited with (-?\d+)", text)
    code = int(exits[-1]) if exits else code
    killed = -code if code < 0 else code - 128 if code > 128 else 0
    if killed in set(signal.Signals):
        return StageFailed(f"{stage}: ended by {signal.Signals(killed).name}", _after(stage, killed))
    if error.exists():
        return StageFailed(f"{stage}: {error.read_text(encoding='utf-8').strip()}", code=code)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    own = [line for line in lines if not _DVC_SAYS.match(line)] or lines or ["failed without a word"]
    return StageFailed(f"{stage}: {own[-1]}", f"all it said: {log}", code)


def _after(stage: str, killed: int) -> str:
    """What to do after a signal. The system sends SIGKILL, without a word, to whom it takes memory from."""
    from tasks.ledger import budget

    begins = f"finished stages are kept, {stage} begins anew"
    again = f"run again: {'it goes on from the last checkpoint' if stage in TRAININGS else begins}"
    if killed != signal.SIGKILL:
        return again
    return f"if memory ran out, lower {budget.LESS_MEMORY.get(stage, stage)}\n  {again}"
