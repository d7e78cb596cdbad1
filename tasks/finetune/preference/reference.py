"""The model that training must not drift away from: the base as it was, in the memory of the base as it is."""

from __future__ import annotations

import copy
from typing import Any


class Reference:
    """The base model before a technique adapts it.

    Its weights are those of the base itself, so an adapter costs no second model: it gets tensors of its own only for
    weights that are trained. So it is the base whatever the technique is, also where switching an adapter off would not
    give the base back (PiSSA keeps what is left of a weight in its place).

    Args:
        base: a transformers causal language model.
    """

    def __init__(self, base: Any) -> None:
        shared = {id(parameter): parameter for parameter in base.parameters()}
        self.model = copy.deepcopy(base, dict(shared)).eval()
        self._before = [(p, _mark(p)) for p in self.model.parameters()]

    def part(self, base: Any) -> None:
        """Told when a technique has begun: what it trains is copied.

        Args:
            base: loads the base anew, where the technique has put other weights in the place of its own.
        """
        import torch

        if any(_mark(p) != mark for p, mark in self._before):
            self.model = base().eval()
            self.model.requires_grad_(False)
            return
        own = {
            id(p): torch.nn.Parameter(p.detach().clone(), requires_grad=False)
            for p, _ in self._before
            if p.requires_grad
        }
        for module in self.model.modules():
            for name, parameter in module._parameters.items():
                if id(parameter) in own:
                    module._parameters[name] = own[id(parameter)]


def _mark(parameter: Any) -> tuple[int, float]:
    """Where a parameter lies and what its numbers add up to: peft writes through `.data`, of which torch's versions know nothing."""
    import torch

    return parameter.data_ptr(), float(parameter.detach().sum(dtype=torch.float64))
