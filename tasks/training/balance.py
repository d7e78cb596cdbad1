"""Balancing experts without a loss: a bias on each expert's score, moved against its load.

transformers routes by `e_score_correction_bias` (DeepSeek-V3) but leaves it to training to move it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BIAS = "e_score_correction_bias"
RATE = 0.001
"""How far a bias moves per step: the paper's best (arXiv:2408.15664, section 4.3) and DeepSeek-V3's."""


class BiasBalance:
    """Auxiliary-loss-free balancing of the routers that train and carry such a bias (arXiv:2408.15664).

    Args:
        model: with frozen routers, or none, nothing is done.
        total: sums a load over all workers.
    """

    def __init__(self, model: Any, total: Callable[[Any], Any] = lambda load: load) -> None:
        self.total = total
        self.routers = [m for m in model.modules() if hasattr(m, BIAS) and m.weight.requires_grad]
        self.loads: dict[Any, Any] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note to which experts the tokens of one step go, all its parts together.

        Padding, which goes to some as well, is a small share; blocks that are computed twice count twice, all alike.
        """
        self.loads = {}
        hooks = [router.register_forward_hook(self._note) for router in self.routers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, router: Any, _inputs: Any, outputs: Any) -> None:
        chosen = outputs[-1]
        self.loads[router] = self.loads.get(router, 0) + chosen.flatten().bincount(minlength=router.num_experts)

    def update(self) -> None:
        """Raise the bias of experts below the mean load, lower it above."""
        import torch

        with torch.no_grad():
            for router, load in self.loads.items():
                load = self.total(load.to(torch.float32))
                getattr(router, BIAS).add_(RATE * torch.sign(load.mean() - load))


def balancing_state(model: Any) -> dict[str, Any]:
    """Name -> tensor of every balancing bias: state of training that is no parameter."""
    return {name: value for name, value in model.named_buffers() if name.endswith(BIAS)}
