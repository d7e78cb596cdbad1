"""Weights that differ from frozen ones where a gate is open: hard-concrete gates (arXiv:1712.01312) over differences."""

from __future__ import annotations

from typing import Any

import torch

LOW, HIGH = -1.5, 1.5
"""Ends of the stretched gates, which are cut off at 0 and 1 (upstream's concrete_lower and concrete_upper)."""


class Gate(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """`base + z * difference`, keeping one number per weight for the way back."""

    @staticmethod
    def forward(ctx: Any, base: Any, difference: Any, logits: Any) -> Any:
        """The weight; `logits` of the gates with the noise in them."""
        share = torch.sigmoid(logits)
        ctx.save_for_backward(difference, share)
        return torch.addcmul(base, _cut(share), difference)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """To the difference and to the logits; where a gate is cut off its logit learns nothing."""
        difference, share = ctx.saved_tensors
        gate = _cut(share)
        slope = share.mul(1 - share).mul_(HIGH - LOW)
        slope.mul_((gate > 0) & (gate < 1)).mul_(difference).mul_(gradients[0])
        return None, gate.mul_(gradients[0]), slope


class Difference(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """The parametrization of a frozen weight.

    Args:
        weight: it.
        alpha_init: of every gate's logit.
        alpha_scale: the logit is this times what is trained, so that it learns as many times faster under Adam.
        penalty: gradient of the logits' probability to be open.

    Attributes:
        difference: trained.
        alpha: trained until the gates are fixed.
        mask: which weights may differ; all, until the gates are fixed.
        fixed: whether they are.
    """

    def __init__(self, weight: Any, alpha_init: float, alpha_scale: float, penalty: float) -> None:
        super().__init__()
        self.difference = torch.nn.Parameter(torch.zeros_like(weight))
        self.alpha = torch.nn.Parameter(torch.zeros_like(weight))
        self.mask = torch.ones_like(weight, dtype=torch.bool)
        self.alpha_init, self.alpha_scale, self.fixed = alpha_init, alpha_scale, False
        self.alpha.register_hook(lambda gradient: gradient + penalty * self._towards_open())

    def forward(self, base: Any) -> Any:
        """The weight: with gates open by chance in training, as far as is likely else."""
        if self.fixed:
            return torch.where(self.mask, base + self.difference, base)
        logits = self.alpha_init + self.alpha_scale * self.alpha
        if self.training:
            chance = torch.rand_like(logits).clamp_(1e-6, 1 - 1e-6)
            logits = logits + torch.logit(chance)
        return Gate.apply(base, self.difference, logits)

    def likely(self) -> Any:
        """The difference, each number times its gate."""
        with torch.no_grad():
            return self.difference * _cut(torch.sigmoid(self.alpha_init + self.alpha_scale * self.alpha))

    def _towards_open(self) -> Any:
        """Derivative of the probability that a gate is open (equation 12 there), times the scale."""
        with torch.no_grad():
            bound = torch.log(torch.tensor(-LOW / HIGH))
            share = torch.sigmoid(self.alpha_init + self.alpha_scale * self.alpha - bound)
            return share.mul_(1 - share).mul_(self.alpha_scale)


def keep_largest(parts: list[Difference], share: float) -> None:
    """Fix the gates: open where the differences of all `parts` together are largest, for a `share` of all weights."""
    sizes = [part.difference.numel() for part in parts]
    likely = torch.cat([part.likely().flatten() for part in parts])
    chosen = likely.abs().topk(max(1, round(share * len(likely)))).indices
    kept = torch.zeros(len(likely), dtype=torch.bool, device=likely.device)
    kept[chosen] = True
    with torch.no_grad():
        for part, value, mask in zip(parts, likely.split(sizes), kept.split(sizes), strict=True):
            part.mask.copy_(mask.view_as(part.mask))
            part.difference.copy_((value * mask).view_as(part.difference))


def _cut(share: Any) -> Any:
    return share.mul(HIGH - LOW).add_(LOW).clamp_(0.0, 1.0)
