"""Workers that train apart and meet every few steps: DiLoCo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tasks.optimizers.technique import Named, OptimizerTechnique
from tasks.training.batch import Batch
from tasks.training.parallel.replicated import Replicated


class LocalSteps(Replicated):
    """`sync_every` steps of each worker on its own share, then one outer Nesterov step along their mean way (arXiv:2311.08105)."""

    def wrap(self, graph: Any) -> Any:
        """The graph itself; where it begins is remembered."""
        import torch

        self._keep(graph)
        self.trained = [parameter for _, parameter in graph.trained()]
        self.anchors = [parameter.detach().clone() for parameter in self.trained]
        momentum = self.parallel.outer_momentum
        self.outer = torch.optim.SGD(
            self.anchors, lr=self.parallel.outer_learning_rate, momentum=momentum, nesterov=momentum > 0
        )
        return graph

    def warm_up(self, module: Any, batch: Batch) -> None:
        """Nothing is laid out anew."""

    def optimizer(self, technique: OptimizerTechnique, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """The worker's own."""
        self.inner = super().optimizer(technique, named, learning_rate, weight_decay)
        return self.inner

    def share(self, batch: Batch) -> Batch:
        """Consecutive rows, as many for each worker."""
        own = super().share(batch)
        self.own = own.labelled
        return own

    def weight(self, labelled: int, whole: int) -> float:
        """Of the worker's own mean: nothing is exchanged in this step."""
        return labelled / self.own if self.own else 0.0

    def syncing(self, module: Any, last: bool) -> AbstractContextManager[object]:
        """Nothing to hold back."""
        return nullcontext()

    def clip(self, parameters: list[Any], max_norm: float) -> float:
        """Each worker by its own norm; said is the root of the mean square, the same on all."""
        import torch

        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_norm))
        return float((self.total({"squares": norm**2})["squares"] / self.size) ** 0.5)

    def after_step(self, step: int, steps: int) -> None:
        """Meet where `sync_every` divides `step`, and after the last."""
        if step % self.parallel.sync_every == 0 or step == steps:
            self._meet()
        super().after_step(step, steps)

    def _meet(self) -> None:
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            for anchor, parameter in zip(self.anchors, self.trained, strict=True):
                anchor.grad = anchor - parameter
                dist.all_reduce(anchor.grad)
                anchor.grad /= self.size
            self.outer.step()
            self.outer.zero_grad(set_to_none=True)
            for anchor, parameter in zip(self.anchors, self.trained, strict=True):
                parameter.copy_(anchor)

    def state(self) -> dict[str, Any]:
        """The outer step's, and every worker's weights and optimizer state, which differ between two meetings."""
        own = {f"weight.{index}": parameter.detach() for index, parameter in enumerate(self.trained)}
        own |= {f"{index}.{name}": tensor for index, name, tensor in self._inner()}
        momenta = {
            f"momentum.{index}": self.outer.state[anchor]["momentum_buffer"]
            for index, anchor in enumerate(self.anchors)
            if self.outer.state[anchor].get("momentum_buffer") is not None
        }
        anchors = {f"anchor.{index}": anchor for index, anchor in enumerate(self.anchors)}
        return self.gathered(own) | anchors | momenta | self.traffic.state()

    def _inner(self) -> Iterator[tuple[int, str, Any]]:
        for index, parameter in enumerate(self.trained):
            for name, tensor in self.inner.state[parameter].items():
                if hasattr(tensor, "copy_"):
                    yield index, name, tensor

    def load_state(self, tensors: Mapping[str, Any]) -> None:
        """As it was; a worker that wasn't there then begins where all met last, with the main worker's optimizer state."""
        import torch

        self.traffic.load_state(tensors)
        own = self.mine(tensors)
        with torch.no_grad():
            for index, (anchor, parameter) in enumerate(zip(self.anchors, self.trained, strict=True)):
                anchor.copy_(tensors[f"anchor.{index}"])
                if (momentum := tensors.get(f"momentum.{index}")) is not None:
                    self.outer.state[anchor]["momentum_buffer"] = momentum.to(anchor.device)
                parameter.copy_(own.get(f"weight.{index}", anchor))
            if own:
                for index, name, tensor in self._inner():
                    tensor.copy_(own[f"{index}.{name}"])
