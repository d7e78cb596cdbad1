"""Workers that each keep the whole model but only their part of the optimizer's state: ZeRO stage 1."""

from __future__ import annotations

import inspect
from typing import Any

from tasks.optimizers.technique import Named, OptimizerTechnique
from tasks.training.parallel.replicated import Replicated
from tasks.training.parallel.traffic import CHECKPOINT


class ZeroOne(Replicated):
    """Optimizer states shared out, tensor by tensor: torch's ZeroRedundancyOptimizer (arXiv:1910.02054)."""

    def optimizer(self, technique: OptimizerTechnique, named: Named, learning_rate: float, weight_decay: float) -> Any:
        """Torch's sharded optimizer around one of the technique's kind: every worker updates its tensors and sends them."""
        from torch.distributed.optim import ZeroRedundancyOptimizer

        whole = technique.build(named, learning_rate, weight_decay)
        groups = [dict(group) for group in whole.param_groups]
        if hasattr(whole, "part"):  # a rule, which torch would not know how to make
            return ZeroRedundancyOptimizer(groups, whole.part)
        accepted = inspect.signature(type(whole).__init__).parameters
        options = {name: value for name, value in whole.defaults.items() if name in accepted}
        return ZeroRedundancyOptimizer(groups, type(whole), **options)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Every tensor's state from the worker that has it, as tensors: torch's own way pickles."""
        import torch
        import torch.distributed as dist

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        local = optimizer.optim.state
        owners = torch.tensor([self.rank if p in local else 0 for p in parameters], device=self.device)
        found: dict[int, dict[str, Any]] = {}
        with self.traffic.of(CHECKPOINT):
            owners = self.total_tensor(owners).tolist()
            scalars = {name: value.dim() == 0 for row in local.values() for name, value in row.items()}
            for index, (parameter, owner) in enumerate(zip(parameters, owners, strict=True)):
                for name, scalar in sorted(scalars.items()):
                    place = torch.zeros((), device=self.device) if scalar else torch.empty_like(parameter)
                    if owner == self.rank:
                        place.copy_(local[parameter][name])
                    dist.broadcast(place.detach(), owner)
                    if self.is_main:
                        found.setdefault(index, {})[name] = place.detach()
        return {"state": found}

    def load_optimizer(self, optimizer: Any, state: dict[int, dict[str, Any]]) -> None:
        """Torch keeps this worker's part of the whole state."""
        groups = [
            {name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups
        ]
        counts = [len(group["params"]) for group in optimizer.param_groups]
        for number, group in enumerate(groups):
            start = sum(counts[:number])
            group["params"] = list(range(start, start + counts[number]))
        optimizer.load_state_dict({"state": dict(state), "param_groups": groups})

    def optimizer_bytes(self, optimizer: Any) -> int:
        """Of this worker's part."""
        return super().optimizer_bytes(optimizer.optim)
