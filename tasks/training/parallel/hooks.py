"""What DDP sends of its gradients: as they are, in half precision, or in low rank. torch's own hooks do the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.training.parallel import Parallel
from tasks.training.parallel.formula import POWERSGD_FULL_STEPS


class Hook:
    """DDP's communication hook.

    Args:
        parallel: what params.yaml says.
        size: number of workers.

    Attributes:
        quiet: nothing is sent; every worker keeps its own gradient.
    """

    def __init__(self, parallel: Parallel, size: int) -> None:
        self.kind, self.size = parallel.comm_hook, size
        self.quiet = False
        self.powersgd: Any = None
        if self.kind == "powersgd":
            from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState

            self.powersgd = PowerSGDState(
                None, matrix_approximation_rank=parallel.powersgd_rank, start_powerSGD_iter=POWERSGD_FULL_STEPS
            )

    def __call__(self, bucket: Any) -> Any:
        """The future of a bucket's mean over all workers.

        PowerSGD's exchanges wait for each other on gloo's few threads; buckets in flight together use them all up and
        stand still, so each is waited for.
        """
        import torch
        from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

        if self.quiet:
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future
        if self.kind == "powersgd":
            future = powerSGD_hook.powerSGD_hook(self.powersgd, bucket)
            future.wait()
            return future
        hooks = {
            "none": default_hooks.allreduce_hook,
            "fp16": default_hooks.fp16_compress_hook,
            "bf16": default_hooks.bf16_compress_hook,
        }
        return hooks[self.kind](None, bucket)

    def state(self) -> dict[str, Any]:
        """Tensors that the next step needs: PowerSGD's factors and the errors it still owes, bucket by bucket."""
        import torch

        if self.powersgd is None:
            return {}
        kept = {
            f"{name}.{index}": tensor
            for name in ("error_dict", "p_memory_dict", "q_memory_dict")
            for index, tensor in getattr(self.powersgd, name).items()
        }
        return kept | {"iter": torch.tensor([self.powersgd.iter])}

    def load_state(self, tensors: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        if self.powersgd is None or not tensors:
            return
        self.powersgd.iter = int(tensors["iter"])
        for key, tensor in tensors.items():
            name, _, index = key.partition(".")
            if index:
                getattr(self.powersgd, name)[int(index)] = tensor
