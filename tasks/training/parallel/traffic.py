"""Bytes that workers exchange, counted where torch is asked for a collective."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from tasks.core.measure import Metrics, counted, measured, missing

TIMES = {
    "all_reduce": 2.0,
    "all_gather_single": 1.0,
    "reduce_scatter_single": 1.0,
    "broadcast": 1.0,
    "gather": 1.0,
    "all_gather": 1.0,
}
"""Collective -> how often a worker sends (p - 1) / p of the whole tensor, in a ring, on the average of all workers:
an all-reduce is a reduce-scatter and an all-gather (Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002)."""

TRAINING, VALIDATION, CONTROL = "training", "validation", "control"
"""Purposes: weights and gradients within steps, weights between steps, figures and words at any time."""

CHECKPOINT, ASIDE = "checkpoint", "aside"
"""Purposes that are no part of `communication_bytes`: gathering for checkpoints, what a run without counting would not do."""

ORIGINAL: dict[str, Any] = {}
"""torch's own functions, once they are replaced."""

INTERFACES = Path("/proc/net/dev")


class Traffic:
    """What one worker asks of torch.distributed, by purpose and collective.

    Every exchange of ours, of DDP (through a communication hook, see `Replicated`), of ZeroRedundancyOptimizer and of
    FSDP2 goes through these functions of `torch.distributed`; they are replaced by ones that count and call them.

    Args:
        size: number of workers.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.purpose = VALIDATION
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.steps = 0
        self.kernel = 0
        self._before: int | None = None

    def install(self) -> None:
        """Count from now on, in this process."""
        import torch.distributed as dist

        for name in TIMES:
            original = ORIGINAL.setdefault(name, getattr(dist, name))
            setattr(dist, name, self._counted(name, original))

    def _counted(self, name: str, function: Any) -> Any:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            tensors = [value for value in (*arguments, *named.values()) if hasattr(value, "nbytes")]
            whole = max(tensor.nbytes for tensor in tensors)
            if name in ("gather", "all_gather"):  # only a worker's part is a tensor of its own
                whole *= self.size
            self.add(name, whole)
            return function(*arguments, **named)

        return call

    @contextmanager
    def of(self, purpose: str) -> Iterator[None]:
        """What is exchanged inside serves `purpose`."""
        before, self.purpose = self.purpose, purpose
        try:
            yield
        finally:
            self.purpose = before

    def control(self) -> AbstractContextManager[None]:
        """What is exchanged inside are words and figures, no weights and no gradients."""
        return self.of(self.purpose if self.purpose in (CHECKPOINT, ASIDE) else CONTROL)

    def add(self, name: str, whole: int) -> None:
        """Count a collective that torch makes without those functions."""
        self.bytes[self.purpose, name] += whole

    def begin_step(self) -> None:
        """A step begins."""
        self.purpose = TRAINING
        self._before = loopback_bytes()

    def end_step(self) -> None:
        """A step is over."""
        self.purpose = VALIDATION
        self.steps += 1
        now = loopback_bytes()
        if now is not None and self._before is not None:
            self.kernel += now - self._before

    def sent(self, *purposes: str) -> float:
        """Bytes a worker has put on the wire for these purposes, on the average of all workers."""
        found = {key: whole for key, whole in self.bytes.items() if key[0] in purposes}
        return sum(TIMES[name] * whole for (_, name), whole in found.items()) * (self.size - 1) / self.size

    def metrics(self, local: bool) -> Metrics:
        """The ledger's entries.

        Args:
            local: whether all workers are on this machine and talk over its loopback interface.
        """
        found = sorted((key, whole) for key, whole in self.bytes.items() if key[0] != ASIDE)
        parts = ", ".join(f"{purpose} {name} {whole:.4g} B" for (purpose, name), whole in found)
        note = (
            f"{self.size} workers, {self.steps} steps; on the wire of a ring: all-reduce 2 (p-1)/p of a tensor, others (p-1)/p; "
            f"tensors: {parts}; checkpoints not included"
        )
        kernel = missing("not all workers talk over this machine's loopback interface")
        if local:
            kernel = measured(
                self.kernel, "sent on the loopback interface during steps, by every process of the machine"
            )

        def all_workers(*purposes: str) -> int:
            return round(self.sent(*purposes) * self.size)

        per_step = self.sent(TRAINING) / self.steps if self.steps else 0.0
        return {
            "communication_bytes": counted(all_workers(TRAINING, VALIDATION, CONTROL), note),
            "communication_bytes/training": counted(all_workers(TRAINING), "of it: gradients and weights within steps"),
            "communication_bytes/control": counted(all_workers(CONTROL), "of it: losses, norms, whether to stop"),
            "communication_bytes/checkpoint": counted(all_workers(CHECKPOINT), "beside it: gathered for checkpoints"),
            "communication_bytes/loopback": kernel,
            "communication_bytes_per_step": counted(per_step, "mean over steps and workers; gradients and weights"),
        }

    def state(self) -> dict[str, Any]:
        """The counts, as tensors for a checkpoint."""
        import torch

        counts = {f"{purpose}/{name}": whole for (purpose, name), whole in self.bytes.items()}
        counts |= {"steps": self.steps, "kernel": self.kernel}
        return {f"traffic/{name}": torch.tensor([count]) for name, count in counts.items()}

    def load_state(self, tensors: Mapping[str, Any]) -> None:
        """Count on from what `state` gave."""
        counts = {name.removeprefix("traffic/"): int(value) for name, value in tensors.items() if "traffic/" in name}
        self.steps, self.kernel = counts.pop("steps"), counts.pop("kernel")
        self.bytes = Counter({(name.partition("/")[0], name.partition("/")[2]): n for name, n in counts.items()})


def loopback_bytes() -> int | None:
    """Bytes sent on the loopback interface since the machine started; None where the kernel doesn't say."""
    try:
        lines = INTERFACES.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    rows = (line.partition(":") for line in lines)
    return next((int(numbers.split()[8]) for name, _, numbers in rows if name.strip() == "lo"), None)
