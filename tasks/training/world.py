"""The workers of a run, as the loop sees them. One worker is the world where nothing is shared."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tasks.core.measure import Metrics, counted
from tasks.training.batch import Batch
from tasks.training.state import graph_tensors, host_copy, load_graph, load_optimizer, optimizer_tensors


class World:
    """One worker.

    Attributes:
        rank: number of this worker.
        size: how many there are.
    """

    rank = 0
    size = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes and speaks."""
        return self.rank == 0

    def wrap(self, graph: Any) -> Any:
        """What is called in the place of `graph`; gradients of calls through it are shared."""
        return graph

    def share(self, batch: Batch) -> Batch:
        """This worker's rows of the whole step's batch."""
        return batch

    def weight(self, labelled: int, whole: int) -> float:
        """What a part's mean over `labelled` positions is multiplied by, so that gradients are those of the mean over all.

        Args:
            labelled: labelled positions of the part.
            whole: labelled positions of the step, all workers and parts together.
        """
        return labelled / whole if whole else 0.0

    def syncing(self, module: Any, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged inside only if `last`: the earlier parts of a step only add up."""
        return nullcontext()

    def clip(self, parameters: list[Any], max_norm: float) -> float:
        """Clip gradients to a global norm, and say what it was."""
        import torch

        return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over all workers."""
        return dict(values)

    def agreed(self, reason: str) -> str:
        """The main worker's `reason`, for all."""
        return reason

    def after_step(self, step: int, steps: int) -> None:
        """Told after every optimizer step, `step` of them done (local SGD meets here)."""

    def snapshot(self, graph: Any, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Whole copies, in the main worker's host memory, of weights by name and optimizer state by "index.name".

        Every worker calls it; what it gives to others than the main one is not used.
        """
        weights, state = graph_tensors(graph), optimizer_tensors(optimizer)
        return (
            {name: host_copy(value) for name, value in weights.items()},
            {name: host_copy(value) for name, value in state.items()},
        )

    def load(self, graph: Any, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Put back what `snapshot` gave. Every worker calls it; others than the main one pass nothing."""
        load_graph(graph, weights)
        load_optimizer(optimizer, state)

    def metrics(self) -> Metrics:
        """What crossed the network."""
        return {"communication_bytes": counted(0, "one worker")}
