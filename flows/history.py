"""The history of a training stage, finished or growing: its rows, and the thread that hands them on while it runs."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

from tasks.ledger import report

Row = dict[str, float]
"""One row of a history: column -> figure; empty cells are left out."""


def path_of(stage: str) -> Path:
    """Where the finished history of `stage` lies."""
    return report.FOLDER / "history" / f"{stage}.csv"


def finished(stage: str) -> list[Row]:
    """The finished history of `stage`; empty for a stage that has none.

    Raises:
        ValueError: a cell is not a number.
    """
    path = path_of(stage)
    return parse(path.read_text(encoding="utf-8")) if path.exists() else []


def parse(text: str) -> list[Row]:
    """The rows of a CSV text that starts with its header.

    Raises:
        ValueError: a cell is not a number.
    """
    return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(io.StringIO(text))]


class Tail:
    """The rows of the newest `work/<stage>/*/history.csv` written since this was made, each returned once.

    The open file is kept, so that rows are still found when the runner moves the file away.

    Attributes:
        key: name of the folder it lies in, "" until there is one.
    """

    def __init__(self, stage: str) -> None:
        self.key = ""
        self._folder = Path("work") / stage
        self._known = self._stamps()
        self._path = Path()
        self._file: io.BufferedReader | None = None
        self._header = ""

    def rows(self) -> list[Row]:
        """The complete rows written since the last call.

        Raises:
            OSError, ValueError: the history can't be read.
        """
        if self._file is not None and self._replaced(self._file):
            self.close()
            self._file, self._header = self._path.open("rb"), ""
        if self._file is None:
            self._file = self._open()
        if self._file is None:
            return []
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._header = ""
        data = self._file.read()
        end = data.rfind(b"\n") + 1
        self._file.seek(end - len(data), os.SEEK_CUR)
        text = data[:end].decode()
        if not self._header:
            self._header, _, text = text.partition("\n")
        return parse(f"{self._header}\n{text}") if text else []

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def _replaced(self, file: io.BufferedReader) -> bool:
        """Whether another file has the place of the open one, as after going back to a checkpoint."""
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in self._folder.glob("*/history.csv"):
            try:
                state = path.stat()
            except FileNotFoundError:  # moved away since it was listed
                continue
            found[path] = (state.st_mtime_ns, state.st_size)
        return found

    def _open(self) -> io.BufferedReader | None:
        written = {path: stamp for path, stamp in self._stamps().items() if self._known.get(path) != stamp}
        if not written:
            return None
        newest = max(written, key=lambda path: written[path])
        try:
            file = newest.open("rb")
        except FileNotFoundError:
            return None
        self.key, self._path = newest.parent.name, newest
        return file


class Sink(Protocol):
    """Who is told of a running stage's rows."""

    def rows(self, rows: list[Row]) -> None:
        """Take new rows."""

    def end(self, status: str) -> None:
        """The attempt ended with `status`, one of MLflow's words."""


class Follower(Thread):
    """Looks for new rows every `period` seconds and hands them to a sink that is opened when the first one appears.

    Args:
        stage: the stage that is about to run.
        period: seconds between two looks.
        open_sink: makes the sink from the work folder's name and the time, in ms since 1970, at which following began.
        complain: told, once, why following ended early.
    """

    def __init__(
        self, stage: str, period: float, open_sink: Callable[[str, int], Sink], complain: Callable[[Exception], None]
    ) -> None:
        super().__init__(name=f"follow-{stage}", daemon=True)
        self._tail, self._period, self._open_sink, self._complain = Tail(stage), period, open_sink, complain
        self._began = round(time.time() * 1000)
        self._over, self._status = Event(), ""
        self._sink: Sink | None = None

    def run(self) -> None:
        """The thread itself."""
        try:
            while not self._over.wait(self._period):
                self._look()
            self._look()
            if self._sink is not None and self._status:
                self._sink.end(self._status)
        except Exception as error:  # a view must never take the stage down with it
            self._complain(error)
        finally:
            self._tail.close()

    def close(self, status: str = "") -> None:
        """Hand on what is left, tell the sink `status` unless it is "", and wait for the thread to end."""
        self._status = status
        self._over.set()
        self.join()

    def _look(self) -> None:
        rows = self._tail.rows()
        if rows and self._sink is None:
            self._sink = self._open_sink(self._tail.key, self._began)
        if rows and self._sink is not None:
            self._sink.rows(rows)
