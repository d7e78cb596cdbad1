"""The workers of a run, as the loop sees them. One worker is the world where nothing is shared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from tasks.core.measure import Metrics, counted
from tasks.optimizers.technique import Named, OptimizerTechnique
from tasks.training.batch import Batch
from tasks.training.state import graph_tensors, host_copy, load_rows, rows_of, state_tensors

BESIDE = "world."
"""Begins the names of tensors that belong to the workers, and not to the model."""


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

    def optimizer(self, technique: OptimizerTechnique, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """The optimizer of what `wrap` has left of the parameters; arguments as `OptimizerTechnique.build` takes them."""
        return technique.build(named, learning_rate, weight_decay)

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

    def warm_up(self, module: Any, batch: Batch) -> None:
        """Told before the first step of an attempt, with a batch to try."""

    def aside(self, module: Any) -> AbstractContextManager[object]:
        """Passes inside belong to no step (FLOPs are counted by them): what they exchange isn't counted."""
        return nullcontext()

    def clip(self, parameters: list[Any], max_norm: float) -> float:
        """Clip gradients to a global norm, and say what it was."""
        import torch

        return float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over all workers."""
        return dict(values)

    def total_tensor(self, tensor: Any) -> Any:
        """The sum of a tensor over all workers."""
        return tensor

    def agreed(self, reason: str) -> str:
        """The `reason` of worker 0, for all."""
        return reason

    def after_step(self, step: int, steps: int) -> None:
        """Told after every optimizer step, `step` of them done (local SGD meets here)."""

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main worker goes through the body before the others do."""
        yield

    def weights(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Whole tensors of (possibly sharded) `tensors`, on the main worker; all must ask."""
        return tensors

    def load_weights(self, places: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        """Copy whole tensors into their (possibly sharded) places."""
        import torch

        with torch.no_grad():
            for name, value in weights.items():
                places[name].copy_(value)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Its `state_dict()` with whole tensors, on the main worker; all must ask."""
        state: dict[str, Any] = optimizer.state_dict()
        return state

    def load_optimizer(self, optimizer: Any, state: dict[int, dict[str, Any]]) -> None:
        """Give an optimizer back its state: whole tensors by number of the parameter and name."""
        load_rows(optimizer, state)

    def optimizer_bytes(self, optimizer: Any) -> int:
        """Bytes of the optimizer's state on this worker."""
        rows = optimizer.state.values()
        return sum(value.nbytes for row in rows for value in row.values() if hasattr(value, "nbytes"))

    def state(self) -> dict[str, Any]:
        """Further tensors that a checkpoint needs, on the main worker; all must ask."""
        return {}

    def load_state(self, tensors: Mapping[str, Any]) -> None:
        """Take back what `state` gave, of as many workers or another number."""

    def snapshot(self, graph: Any, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Whole copies, in the main worker's host memory, of weights by name and optimizer state by "index.name".

        What else the workers need lies among the weights, its names behind `BESIDE`. All must ask; the others get nothing.
        """
        weights = self.weights(graph_tensors(graph))
        weights |= {BESIDE + name: tensor for name, tensor in self.state().items()}
        state = state_tensors(self.optimizer_state(optimizer))
        if not self.is_main:
            return {}, {}
        return (
            {name: host_copy(value) for name, value in weights.items()},
            {name: host_copy(value) for name, value in state.items()},
        )

    def load(self, graph: Any, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Put back what `snapshot` gave, on every worker."""
        beside = {name.removeprefix(BESIDE): value for name, value in weights.items() if name.startswith(BESIDE)}
        own = {name: value for name, value in weights.items() if not name.startswith(BESIDE)}
        self.load_weights(graph_tensors(graph), own)
        self.load_optimizer(optimizer, rows_of(state))
        if beside:
            self.load_state(beside)

    def metrics(self) -> Metrics:
        """What crossed the network."""
        return {"communication_bytes": counted(0, "one worker")}
