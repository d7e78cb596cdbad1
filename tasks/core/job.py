"""What the shell lends a running stage: a place that survives a kill, a history, a progress bar, the budget's eye."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.core.errors import OverBudget

if TYPE_CHECKING:
    from tqdm import tqdm

T = TypeVar("T")

Row = dict[str, float | str]
"""A row of a history, or what stands beside a progress bar: name -> figure, "" where nothing could be read."""


def _nothing_is_spent(_flops: float) -> str:
    return ""


def _nothing_is_known() -> Row:
    return {}


@dataclass
class Job:
    """One attempt at one stage.

    Attributes:
        stage: the stage's name.
        work: folder for checkpoints, keyed by parameters and inputs; it outlives the process.
        over_budget: given the FLOPs done so far, the sentence that says which resource ran out, or "".
        gemm_flops_per_second: the machine's measured rate by dtype ("float32", "bfloat16"), for MFU; may be empty.
        bandwidth_bytes_per_second: of the memory of the device models run on, for MBU; None: not measured.
        host_bandwidth_bytes_per_second: of the host's memory, where engines run that know no accelerator.
        flops: what training has computed so far, all attempts together; `over_budget` is asked with it in between.
        spent: memory_bytes, energy_joules and dollars when `over_budget` was last asked; the same names every time.
        left: share of the scarcest limit of `budget:` that was left then, by its name; {} without a limit.
    """

    stage: str
    work: Path
    over_budget: Callable[[float], str] = _nothing_is_spent
    gemm_flops_per_second: dict[str, float] = field(default_factory=dict)
    bandwidth_bytes_per_second: float | None = None
    host_bandwidth_bytes_per_second: float | None = None
    flops: float = 0.0
    spent: Callable[[], Row] = _nothing_is_known
    left: Callable[[], Row] = _nothing_is_known

    def stop_if_over_budget(self, done: str, kept: str = "checkpoints and finished stages are kept") -> None:
        """Stop here if a resource of `budget:` has run out. Called between two pieces of work, never inside one.

        Args:
            done: what has just been finished, e.g. "evaluation batch 3 of 40".
            kept: what the next attempt need not do again.

        Raises:
            OverBudget: which resource ran out, where the stage stopped, and what to do.
        """
        reason = self.over_budget(self.flops)
        if reason:
            raise OverBudget(f"{self.stage}: stopped after {done}: {reason}", f"raise the budget and run again: {kept}")

    @property
    def history(self) -> Path:
        """The live history of this attempt: one CSV row per step, header first."""
        return self.work / "history.csv"

    def record(self, **row: float | str) -> None:
        """Append a row to the history; the first row fixes the columns. What is not a number leaves its cell empty."""
        fresh = not self.history.exists()
        with self.history.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            if fresh:
                writer.writeheader()
            writer.writerow({name: "" if value != value else value for name, value in row.items()})

    def rewind(self, step: int) -> None:
        """Drop rows at or after `step`: they will be written again after resuming."""
        if not self.history.exists():
            return
        with self.history.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if row.get("step") and int(row["step"]) < step]
            columns = list(reader.fieldnames or [])
        unfinished = self.history.with_suffix(".tmp")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(unfinished, self.history)

    def say(self, message: str) -> None:
        """One line to the person watching."""
        print(f"{self.stage}: {message}", file=sys.stderr, flush=True)

    def progress(self, total: int, initial: int = 0, unit: str = "step") -> Progress:
        """A progress bar on a terminal, a plain line every few seconds elsewhere. Use as a context manager."""
        return Progress(self, total, initial, unit)

    def track(self, items: Iterable[T], total: int, unit: str) -> Iterator[T]:
        """Iterate with a progress bar; between two items the budget may stop it (`stop_if_over_budget`)."""
        with self.progress(total, unit=unit) as bar:
            for count, item in enumerate(items, 1):
                yield item
                bar.advance()
                if count < total:
                    self.stop_if_over_budget(f"{unit} {count} of {total}")


class Progress(AbstractContextManager["Progress"]):
    """A tqdm bar on a terminal; elsewhere one plain line at most every `EVERY` seconds."""

    EVERY = 10.0

    def __init__(self, job: Job, total: int, initial: int, unit: str, shown: bool = True) -> None:
        self.job, self.total, self.done, self.unit = job, total, initial, unit
        self.bar: tqdm[Any] | None = None
        self.said = time.monotonic()
        self._began, self._made = self.said, 0
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=initial, unit=unit, desc=job.stage, dynamic_ncols=True, leave=False)

    def advance(self, count: int = 1, /, **values: float | str) -> None:
        """Move on by `count` (below 0: back), showing `values` beside the bar."""
        self.done += count
        self._made += max(0, count)
        if self.bar is not None:
            self.bar.set_postfix_str(_beside(values), refresh=False)
            self.bar.update(count)
        elif time.monotonic() - self.said >= self.EVERY:
            self.said = time.monotonic()
            told = [f"{self.unit} {self.done} of {self.total}", _beside(values), self._time_left()]
            self.job.say(", ".join(part for part in told if part))

    def _time_left(self) -> str:
        """At the pace of this attempt so far, evaluations and repeated steps included; tqdm says it on its own."""
        if not self._made or self.done >= self.total:
            return ""
        seconds = (time.monotonic() - self._began) / self._made * (self.total - self.done)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left"

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


def _beside(values: Row) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else format(value, '.4g')}" for name, value in values.items()
    )
