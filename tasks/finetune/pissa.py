"""PiSSA: LoRA whose A and B begin as the largest singular parts of the weight, which leave the frozen rest."""

from __future__ import annotations

from pydantic import PositiveInt

from tasks.finetune.shared.split import Split


class Pissa(Split):
    """Train a weight's largest singular vectors, freeze the rest (arXiv:2404.02948).

    Before the first step the model computes what it did, but for rounding. The adapter that is delivered is a plain LoRA
    of twice the rank: it holds what was learned, on the base as it was.
    """

    niter: PositiveInt = 16
    """Iterations of the randomized singular value decomposition; each costs four products with the weight."""

    def start(self) -> str:
        """The largest singular parts."""
        return f"pissa_niter_{self.niter}"
