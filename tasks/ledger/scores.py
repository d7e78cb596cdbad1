"""`hardware/<machine>.scores.jsonl`: what was predicted for every stage that ran on a machine, beside what it took.

One line per run of a stage. Predictions are kept as the formulas made them, before any correction, so that correcting
by them doesn't feed on itself.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tasks.core.measure import Metrics

FOLDER = Path("hardware")

NEWEST = 2000
"""Lines that are read, from the end."""


@dataclass(frozen=True, eq=False)
class Score:
    """One run of one stage.

    Attributes:
        stage: its name.
        family: model type.
        technique: what the stage was told to use: `lora`, `bf16`, `nf4`.
        raw: metric -> prediction before correction.
        measured: metric -> what an instrument read or an operator count gave.
        date: when it was finished, ISO 8601.
        formulas: identity of the code that predicted.
        versions: of the libraries that did the work.
        others: share of the machine's cores that other processes kept busy meanwhile; None: not known.
    """

    stage: str
    family: str
    technique: str
    raw: Mapping[str, float]
    measured: Mapping[str, float]
    date: str
    formulas: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    others: float | None = None

    def ratio(self, metric: str) -> float | None:
        """Measured divided by predicted, or None where either is missing or not positive."""
        predicted, measured = self.raw.get(metric, 0.0), self.measured.get(metric, 0.0)
        return measured / predicted if predicted > 0 and measured > 0 else None


@dataclass(frozen=True, eq=False)
class Scores:
    """All runs on one machine, oldest first.

    Attributes:
        runs: they.
        damaged: lines that could not be read and were left out.
    """

    runs: tuple[Score, ...] = ()
    damaged: int = 0


NONE = Scores()
"""No run yet: predictions stay as the formulas make them."""


def path(machine: str) -> Path:
    """Where the scores of a machine lie."""
    return FOLDER / f"{re.sub(r'[^A-Za-z0-9._-]', '_', machine)}.scores.jsonl"


def read(machine: str) -> Scores:
    """The scores of a machine; none for one without a name or without a file. Damaged lines are counted and left out."""
    if not machine:
        return NONE
    found = path(machine)
    try:
        stamp = found.stat()
    except OSError:
        return NONE
    return _read(found.resolve(), stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=8)
def _read(found: Path, _changed: int, _size: int) -> Scores:
    runs, damaged = [], 0
    for line in found.read_bytes().splitlines()[-NEWEST:]:
        if not line.strip():
            continue
        try:
            runs.append(_score(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            damaged += 1
    return Scores(tuple(sorted(runs, key=lambda run: run.date)), damaged)


def _score(entry: dict[str, Any]) -> Score:
    """Raises: ValueError, TypeError or KeyError for what isn't a score."""
    score = Score(**entry)
    datetime.fromisoformat(score.date)
    numbers = [*dict(score.raw).values(), *dict(score.measured).values(), score.others or 0.0]
    if not all(isinstance(number, int | float) for number in numbers) or not isinstance(score.stage, str):
        raise ValueError("not numbers")
    return score


def append(machine: str, score: Score) -> None:
    """Add a run; nothing happens on a machine without a name.

    Raises:
        OSError: the folder can't be written.
    """
    if not machine:
        return
    target = path(machine)
    target.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(score), ensure_ascii=False) + "\n"
    with target.open("a+b") as file:  # one write in append mode: two stages that end together don't mix their lines
        file.seek(0, 2)
        torn = file.tell() and _last_byte(file) != b"\n"
        file.write((("\n" if torn else "") + line).encode())


def _last_byte(file: Any) -> bytes:
    file.seek(-1, 2)
    return bytes(file.read(1))


def made(
    about: tuple[str, str, str], raw: Metrics, metrics: Metrics, versions: Mapping[str, str], others: float | None
) -> Score | None:
    """The score of a finished run.

    Args:
        about: stage, model type, technique.
        raw: its prediction before correction.
        metrics: its ledger; what is modelled there is no measurement and is left out.
        versions: of the libraries.
        others: `Score.others`.

    Returns:
        None where there is nothing to compare: no prediction, or more than one attempt, which no prediction is about.
    """
    attempts = metrics.get("attempts")
    if attempts is not None and attempts.value != 1:
        return None
    read_off = {name: value for name, value in metrics.items() if value.method in ("measured", "counted")}
    predicted, measured = numbers(raw, read_off), numbers(read_off, raw)
    if not predicted:
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Score(*about, predicted, measured, now, formulas(), versions, others)


def busy_seconds() -> float:
    """Processor seconds all processes of the machine have used, user and system."""
    import psutil

    times = psutil.cpu_times()
    return float(times.user + times.system)


def numbers(metrics: Metrics, names: Mapping[str, Any]) -> dict[str, float]:
    """The known numbers among `metrics`, of those that are also in `names`."""
    known = {name: metrics[name].value for name in names if name in metrics}
    return {name: float(value) for name, value in known.items() if value is not None}


@cache
def formulas() -> str:
    """Identity of the code that predicts: predictions of other code are compared with less trust."""
    digest = hashlib.sha256()
    for source in sorted((Path(__file__).parent / "predict").glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
