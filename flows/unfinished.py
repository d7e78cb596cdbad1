"""What stopped runs have left to go on from, by size; it waits under `work/` for parameters that may never come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from flows.environment import WORK
from tasks.params import STAGES

LEAST = 1 << 20
"""Bytes of a folder that is worth naming."""


def unfinished() -> dict[Path, int]:
    """Folders of begun work and their bytes on the disk, largest first."""
    sizes = {folder: sum(_sizes(folder)) for stage in STAGES for folder in (WORK / stage).glob("*/")}
    return {folder: size for folder, size in sorted(sizes.items(), key=lambda entry: -entry[1]) if size >= LEAST}


def told() -> list[str]:
    """The same for a person: a line each, and what may be done about them; none where nothing waits."""
    from flows.report.words import human

    lines = [f"  {folder}  {human(size, 'B')}" for folder, size in unfinished().items()]
    head = "begun and not finished; each goes on under the parameters it began with, and may be deleted where they won't come back:"
    return [head, *lines] if lines else []


def _sizes(folder: Path) -> Iterator[int]:
    """Of every file below; one that is removed meanwhile has none."""
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size
