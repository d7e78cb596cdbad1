"""What autograd keeps of a step's forward pass for its backward pass, counted once in a run."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tasks.core.measure import Metrics, counted
from tasks.training.checkpoint import Progress
from tasks.training.settings import Settings
from tasks.training.world import World


class Saved:
    """Counts in the first step of a run; a checkpoint carries the figure on.

    Not where it would cost, or say little: compiled blocks would be compiled anew, workers hold shards, parts of a step
    are freed one after the other, and what is computed again is there for a moment only.

    Args:
        graph: model and objective.
        settings: of the run.
        world: the workers.
    """

    def __init__(self, graph: Any, settings: Settings, world: World) -> None:
        self._graph, self._way = graph, settings.gradient_checkpointing
        alone = world.size == 1 and settings.gradient_accumulation_steps == 1
        self._able = alone and self._way == "none" and not settings.compile

    @contextmanager
    def watching(self, done: Progress) -> Iterator[None]:
        """The first pass through the graph inside is counted, if none was before."""
        if done.saved_bytes is not None or not self._able:
            yield
            return
        inside = ExitStack()
        found: list[Keeping] = []

        def enter(*_: Any) -> None:
            if not found:
                found.append(inside.enter_context(saving(self._graph)))

        def leave(*_: Any) -> None:
            if done.saved_bytes is None:
                done.saved_bytes = found[0].bytes
            inside.close()

        handles = [self._graph.register_forward_pre_hook(enter), self._graph.register_forward_hook(leave)]
        try:
            with inside:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def metrics(self, done: Progress) -> Metrics:
        """The figure, under the name of its prediction."""
        if done.saved_bytes is None:
            return {}
        return {f"activation_bytes/{self._way}": counted(done.saved_bytes, "of the first batch, weights left out")}


class Keeping:
    """What autograd keeps at the moment, of what passed by.

    Args:
        module: its parameters and buffers don't count.
    """

    def __init__(self, module: Any) -> None:
        self._own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        self._seen: list[weakref.ref[Any]] = []  # what is held here would be in the run's peak of memory

    def pack(self, tensor: Any) -> Any:
        """Remember a tensor that autograd is about to keep."""
        if tensor.untyped_storage().data_ptr() not in self._own:
            self._seen.append(weakref.ref(tensor))
        return tensor

    @property
    def bytes(self) -> int:
        """Of all storages, each once."""
        alive = [tensor for ref in self._seen if (tensor := ref()) is not None]
        storages = [tensor.untyped_storage() for tensor in alive]
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@contextmanager
def saving(module: Any) -> Iterator[Keeping]:
    """Watch what autograd keeps of `module` inside; its size is known while the result is there."""
    import torch

    found = Keeping(module)
    hooks: Any = torch.autograd.graph.saved_tensors_hooks
    with hooks(found.pack, lambda tensor: tensor):
        yield found
