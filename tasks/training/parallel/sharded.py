"""Workers that each keep a part of everything: ZeRO stages 2 and 3 by torch's FSDP2."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tasks.core.errors import UserError
from tasks.training.batch import Batch
from tasks.training.parallel import Parallel
from tasks.training.parallel.replicated import Replicated
from tasks.training.parallel.traffic import CHECKPOINT
from tasks.training.world import World


class Sharded(Replicated):
    """Fully sharded data parallel, block by block (arXiv:2304.11277).

    zero2 keeps the gathered weights from the forward pass until the backward pass is over; zero3 (fsdp) gathers them again.
    """

    def __init__(self, parallel: Parallel) -> None:
        super().__init__(parallel)
        self.again = parallel.strategy in ("zero3", "fsdp")

    def wrap(self, graph: Any) -> Any:
        """`fully_shard` of every block and of the rest; the graph's parameters become DTensors."""
        from torch.distributed.fsdp import fully_shard

        self._keep(graph)
        kinds = set(graph.model._no_split_modules or ())
        for block in [module for module in graph.model.modules() if type(module).__name__ in kinds]:
            fully_shard(block, reshard_after_forward=self.again)
        return fully_shard(graph, reshard_after_forward=self.again)

    def warm_up(self, module: Any, batch: Batch) -> None:
        """Nothing is laid out anew."""

    def syncing(self, module: Any, last: bool) -> AbstractContextManager[object]:
        """Gradients are scattered with the last part; zero2 keeps the gathered weights until then."""
        module.set_requires_gradient_sync(last)
        if not self.again:
            module.set_reshard_after_backward(last)
        return nullcontext()

    def clip(self, parameters: list[Any], max_norm: float) -> float:
        """By the norm over all parts of all workers, summed in double precision."""
        import torch

        with torch.no_grad():
            gradients = [p.grad.to_local() for p in parameters if p.grad is not None]
            squares = sum(float(gradient.double().square().sum()) for gradient in gradients)
            norm = float(self.total({"squares": squares})["squares"] ** 0.5)
            torch._foreach_mul_(gradients, min(1.0, max_norm / (norm + 1e-6)))
        return norm

    def weights(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Gathered one by one; what isn't sharded is passed on."""
        whole = {}
        for name, tensor in tensors.items():
            gathered = self._whole(tensor)
            if self.is_main:
                whole[name] = gathered
        return whole

    def load_weights(self, places: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        """Every worker copies its rows of the whole."""
        local = {name: _local(place) for name, place in places.items()}
        World.load_weights(
            self, local, {n: self._rows(value) if _sharded(places[n]) else value for n, value in weights.items()}
        )

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Gathered tensor by tensor.

        Raises:
            UserError: the optimizer keeps a state that isn't sharded as its parameter is.
        """
        state = optimizer.state_dict()["state"]
        found: dict[int, dict[str, Any]] = {}
        for index, row in state.items():
            for name, value in row.items():
                if not _sharded(value) and getattr(value, "numel", lambda: 1)() > 1:
                    raise UserError(
                        f"pretrain.parallel.strategy: found {self.parallel.strategy}; the optimizer's '{name}' isn't sharded",
                        "use ddp, or the optimizer adamw",
                    )
                whole = self._whole(value)
                if self.is_main:
                    found.setdefault(index, {})[name] = whole
        return {"state": found}

    def load_optimizer(self, optimizer: Any, state: dict[int, dict[str, Any]]) -> None:
        """Every worker keeps its rows of the whole."""
        from torch.distributed.tensor import DTensor

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        parts: dict[int, dict[str, Any]] = {}
        for index, row in state.items():
            like = parameters[index]
            for name, value in row.items():
                if getattr(value, "shape", ()) == like.shape:
                    value = DTensor.from_local(
                        self._rows(value).to(like.device),
                        like.device_mesh,
                        like.placements,
                        shape=like.shape,
                        stride=like.stride(),
                    )
                parts.setdefault(index, {})[name] = value
        super().load_optimizer(optimizer, parts)

    def optimizer_bytes(self, optimizer: Any) -> int:
        """Of this worker's part."""
        rows = optimizer.state.values()
        return sum(_local(value).nbytes for row in rows for value in row.values() if hasattr(value, "nbytes"))

    def _whole(self, tensor: Any) -> Any:
        if not _sharded(tensor):
            return tensor
        with self.traffic.of(CHECKPOINT):
            self.traffic.add("all_gather_single", tensor.numel() * tensor.element_size())
            return tensor.detach().full_tensor()

    def _rows(self, whole: Any) -> Any:
        """This worker's rows: as even as `torch.chunk` makes them, none for the last workers of a short tensor."""
        parts = whole.chunk(self.size)
        return (parts[self.rank] if self.rank < len(parts) else whole[:0]).contiguous()


def _sharded(tensor: Any) -> bool:
    return hasattr(tensor, "to_local")


def _local(tensor: Any) -> Any:
    return tensor.to_local() if _sharded(tensor) else tensor
