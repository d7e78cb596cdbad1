"""Workers that each keep the whole model and exchange gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from tasks.core.measure import Metrics
from tasks.training.batch import Batch
from tasks.training.parallel import Parallel
from tasks.training.parallel.hooks import Hook
from tasks.training.parallel.traffic import ASIDE, CHECKPOINT, Traffic
from tasks.training.world import BESIDE, World


class Replicated(World):
    """Data parallel: torch's DistributedDataParallel (arXiv:2006.15704).

    Args:
        parallel: what params.yaml says.
    """

    def __init__(self, parallel: Parallel) -> None:
        import torch.distributed as dist

        self.parallel = parallel
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.traffic = Traffic(self.size)
        self.traffic.install()
        self.graph: Any = None
        self.device: Any = None
        self.hook = Hook(parallel, self.size)

    @property
    def is_main(self) -> bool:
        """Whether this worker is the first of its machine, which writes there what every machine delivers."""
        return self.rank % self.parallel.nproc_per_node == 0

    def wrap(self, graph: Any) -> Any:
        """DDP around the graph. Its constructor exchanges nothing: the workers have built the same model."""
        from torch.nn.parallel import DistributedDataParallel

        self._keep(graph)
        devices = [self.device.index] if self.device.type == "cuda" else None
        module = DistributedDataParallel(
            graph, device_ids=devices, forward_sync_buffers=False, init_sync=False, gradient_as_bucket_view=False
        )
        module.register_comm_hook(None, lambda _, bucket: self.hook(bucket))
        return module

    def warm_up(self, module: Any, batch: Batch) -> None:
        """One pass whose gradients stay here and are dropped.

        DDP lays its buckets out anew after its first pass, and with them the order in which numbers are added up. After
        this one a run and a run that goes on from a checkpoint add alike, bit for bit.
        """
        part = batch.rows(0, 1)
        self.hook.quiet = True
        total, _ = module(part.inputs, part.labels, part.extras)
        total.backward()
        module.zero_grad(set_to_none=True)
        self.hook.quiet = False

    def _keep(self, graph: Any) -> None:
        """Remember the graph; its parameters must be the same on all workers.

        Raises:
            RuntimeError: they are not: the workers were not built alike.
        """
        self.graph = graph
        self.device = next(graph.parameters()).device
        self._same(parameter.detach() for parameter in graph.parameters())

    def _same(self, tensors: Iterable[Any]) -> None:
        mine = f"{math.fsum(float(tensor.double().sum()) for tensor in tensors):.17g}"
        with self.traffic.of(ASIDE):
            if self.agreed(mine) != mine:
                raise RuntimeError(f"worker {self.rank} begins with other weights than worker 0")

    def share(self, batch: Batch) -> Batch:
        """Consecutive rows, as many for each worker."""
        self.traffic.begin_step()
        rows = len(batch.inputs) // self.size
        return batch.rows(self.rank * rows, (self.rank + 1) * rows)

    def weight(self, labelled: int, whole: int) -> float:
        """The exchange takes the mean over workers, where the sum is wanted."""
        return self.size * super().weight(labelled, whole)

    def syncing(self, module: Any, last: bool) -> AbstractContextManager[object]:
        """DDP's `no_sync` for all parts but the last."""
        if last:
            return nullcontext()
        quiet: AbstractContextManager[object] = module.no_sync()
        return quiet

    @contextmanager
    def aside(self, module: Any) -> Iterator[None]:
        """The graph is called past DDP, which then leaves gradients alone; FSDP exchanges them: all workers count the same."""
        with self.traffic.of(ASIDE):
            yield

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """One exchange for all values, in double precision."""
        import torch

        summed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        return dict(zip(values, self.total_tensor(summed).tolist(), strict=True))

    def total_tensor(self, tensor: Any) -> Any:
        """Summed in place."""
        import torch.distributed as dist

        with self.traffic.control():
            dist.all_reduce(tensor)
        return tensor

    def agreed(self, reason: str) -> str:
        """Length first, then the words where there are any: numbers only, nothing is unpickled."""
        import torch
        import torch.distributed as dist

        words = reason.encode()
        with self.traffic.control():
            length = torch.tensor([len(words)], device=self.device)
            dist.broadcast(length, 0)
            if not int(length):
                return ""
            text = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
            if self.rank == 0:
                text.copy_(torch.frombuffer(bytearray(words), dtype=torch.uint8))
            dist.broadcast(text, 0)
        return bytes(text.tolist()).decode()

    def after_step(self, step: int, steps: int) -> None:
        """A step is over."""
        self.traffic.end_step()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Others wait for the main worker at a barrier."""
        import torch.distributed as dist

        if not self.is_main:
            dist.barrier()
        yield
        if self.is_main:
            dist.barrier()

    def state(self) -> dict[str, Any]:
        """What the communication hook keeps, of every worker, and what was counted."""
        return self.gathered(self.hook.state()) | self.traffic.state()

    def load_state(self, tensors: Mapping[str, Any]) -> None:
        """This worker's part, if there was a worker of its number."""
        self.hook.load_state(self.mine(tensors))
        self.traffic.load_state(tensors)

    def load(self, graph: Any, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
        """Put back what `snapshot` gave; each machine reads its own file.

        Raises:
            RuntimeError: they hold different weights.
        """
        if self.parallel.nnodes > 1:
            self._same(value for name, value in weights.items() if not name.startswith(BESIDE))
        super().load(graph, optimizer, weights, state)

    def gathered(self, own: dict[str, Any]) -> dict[str, Any]:
        """Every worker's tensors on the main worker of every machine, named `RANK.NAME`; names and shapes are the same on all."""
        import torch
        import torch.distributed as dist

        found: dict[str, Any] = {}
        with self.traffic.of(CHECKPOINT):
            for name, tensor in own.items():
                places = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_main else None
                if self.parallel.nnodes == 1:
                    dist.gather(tensor.contiguous(), places, dst=0)
                else:
                    everywhere = places or [torch.empty_like(tensor) for _ in range(self.size)]
                    dist.all_gather(everywhere, tensor.contiguous())
                found |= {f"{rank}.{name}": place for rank, place in enumerate(places or [])}
        return found

    def mine(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """What `gathered` collected from this worker's number."""
        start = f"{self.rank}."
        return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}

    def metrics(self) -> Metrics:
        """What crossed the network, all workers together."""
        return self.traffic.metrics(local=self.parallel.nnodes == 1 and self.device.type == "cpu")
