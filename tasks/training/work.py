"""FLOPs of a run's steps, counted on the graph they go through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.core.measure import Value, measured, missing
from tasks.models.chat import IGNORED
from tasks.objectives.technique import Objective
from tasks.training.batch import Batch
from tasks.training.documents import lengths_of
from tasks.training.flops import Flops
from tasks.training.hooks import Hooks
from tasks.training.recompute import everything_kept
from tasks.training.settings import Settings
from tasks.training.world import World


class Work:
    """Counts once for each thing that is trained at a time.

    Args:
        graph: model and objective, before anything wraps them.
        module: what a step runs.
        rehearse: what a step does to a batch, gradients included; what it leaves is swept away.
        peak: the machine's measured rate of matrix products in the arithmetic of the run, FLOP/s; None: not measured.

    Attributes:
        useful: share of the executed FLOPs that the model itself takes.
    """

    def __init__(
        self,
        graph: Any,
        module: Any,
        objective: Objective,
        hooks: Hooks,
        settings: Settings,
        world: World,
        rehearse: Callable[[Batch], None],
        peak: float | None = None,
    ) -> None:
        self.peak, self.useful = peak, 1.0
        self.graph, self.module, self.objective, self.hooks = graph, module, objective, hooks
        self.settings, self.world, self.rehearse = settings, world, rehearse
        self._counted: dict[str, Flops] = {}

    def of(self, batch: Batch) -> float:
        """FLOPs of a step's batch."""
        regime = self.hooks.regime
        if regime not in self._counted:
            self._counted[regime] = self._count(batch)
        return self._of(self._counted[regime], batch)

    def begin(self, batch: Batch) -> None:
        """Find out what is `useful` of a step: all but what is computed again."""
        executed = self.of(batch)
        with everything_kept(self.graph.model):
            kept = self._of(self._count(batch), batch)
        self.useful = kept / executed

    def mfu(self, rate: float) -> float | None:
        """Model FLOPs utilization (arXiv:2204.02311, appendix B) at `rate` executed FLOP/s; None without a peak."""
        return self.useful * rate / self.peak if self.peak else None

    def reached(self, rate: float) -> Value:
        """The same as the ledger's entry."""
        mfu = self.mfu(rate)
        if mfu is None or self.peak is None:
            return missing("the machine's matrix-product rate was not measured")
        return measured(mfu, f"of {self.peak / 1e9:.0f} GFLOP/s measured in {self.settings.precision}")

    def note(self) -> str:
        """How the figure was got."""
        outside = f" + {self.objective.outside_is}" if self.objective.outside else ""
        each = "every chat of a row by its own length" if self.settings.packed else "sequences"
        return f"operators of one sequence x {each}{outside}"

    def _of(self, flops: Flops, batch: Batch) -> float:
        passes = self.settings.gradient_accumulation_steps * self.world.size
        if self.settings.packed and "documents" in batch.extras:
            return flops.of_documents(lengths_of(batch.extras["documents"]), batch.labelled, passes)
        return flops.of(batch.inputs.shape[0], batch.inputs.shape[1], batch.labelled, passes)

    def _count(self, batch: Batch) -> Flops:
        row = batch.rows(0, 1)

        def step(length: int, labelled: int, sequences: int) -> None:
            ids = row.inputs.repeat(sequences, -(-length // row.inputs.shape[1]))[:, :length]
            some = ids.clone()
            some[:, labelled:] = IGNORED
            with self.world.aside(self.module):
                self.rehearse(Batch(ids, some, self.objective.rehearsal(ids)))

        return Flops(step, self.objective.ahead, self.hooks.fixed)
