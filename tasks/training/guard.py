"""Looks after the steps of a run: which batch each one takes, which went wrong, and how many were done twice."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import Diverged, UserError
from tasks.core.files import write_durably
from tasks.core.job import Job
from tasks.training.spikes import Spikes
from tasks.training.world import World

LEAST = 0.01
"""Share of the mean that a standard deviation counts as at least: losses that hardly move would else all be spikes."""


class Spike(Exception):
    """A step that must not be taken; the message says what is wrong with it."""


class Guard:
    """Finds steps that go wrong, and remembers the batches that are left out because of them, whatever is killed when.

    Args:
        spikes: what is a spike, and how many batches may be left out.
        job: whose folder remembers.
        world: the workers; the main one reads and writes.

    Raises:
        UserError: what was remembered cannot be read.
    """

    def __init__(self, spikes: Spikes, job: Job, world: World) -> None:
        self.spikes, self.job, self.world = spikes, job, world
        self._kept = job.work / "skipped.json"
        self.skipped: list[int] = json.loads(world.agreed(json.dumps(self._read() if world.is_main else [])))

    def batch_of(self, step: int) -> int:
        """Number of the batch that `step` takes: the step-th of those not skipped."""
        number = step
        for skipped in sorted(self.skipped):
            number += skipped <= number
        return number

    def judge(self, loss: float, norm: float, before: Sequence[float]) -> None:
        """Let a step pass, or not.

        Args:
            loss: of the step, over all workers.
            norm: of its gradient.
            before: losses of the steps before it.

        Raises:
            Spike: one of them is not a number, or the loss is far above `before`.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Spike(f"is not a number (loss {loss}, gradient norm {norm})")
        window, deviations = self.spikes.window, self.spikes.deviations
        if deviations is None or len(before) < window:
            return
        near = before[-window:]
        mean = math.fsum(near) / window
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in near) / window)
        if loss > mean + deviations * max(spread, LEAST * abs(mean)):
            raise Spike(f"is a spike ({loss:.4g}, after {window} steps of {mean:.4g} on average)")

    def skip(self, step: int, spike: Spike, mend: str) -> None:
        """Leave out the batch of `step` from now on; it is on the disk before this returns.

        So a kill on the way back changes nothing: the next attempt leaves it out as well.

        Args:
            step: the one that went wrong.
            spike: what is wrong with it.
            mend: what to do where there were too many.

        Raises:
            Diverged: as many as may be are left out already.
        """
        number, most = self.batch_of(step), self.spikes.max_skipped
        if len(self.skipped) >= most:
            after = f", after {most} batches were skipped for the like" if most else ""
            raise Diverged(f"{self.job.stage}: the loss at step {step} {spike}{after}", mend)
        self.skipped.append(number)
        if self.world.is_main:
            write_durably(self._kept, json.dumps({"key": self.job.work.name, "skipped": self.skipped}))
            self.job.say(
                f"the loss at step {step} {spike}: back to the last checkpoint, "
                f"batch {number} is skipped ({len(self.skipped)} of at most {most})"
            )

    def _read(self) -> list[int]:
        try:
            kept = json.loads(self._kept.read_text(encoding="utf-8"))
            return [int(number) for number in kept["skipped"]] if kept["key"] == self.job.work.name else []
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._kept}: damaged ({error!r})", f"remove {self.job.work} to train anew") from None


class Tally:
    """Steps that were done, all attempts together: a byte each in a file, so that no kill takes one off."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self) -> None:
        """A step is done."""
        with self._path.open("ab") as file:
            file.write(b".")

    def beyond(self, steps: int) -> int:
        """How many were done beside the `steps` that count."""
        return max(0, self._path.stat().st_size - steps) if self._path.exists() else 0
