"""OLoRA: LoRA whose A and B begin as the first parts of the weight's QR decomposition, taken out of the frozen weight."""

from __future__ import annotations

from tasks.finetune.shared.split import Split


class Olora(Split):
    """Low-rank update from an orthonormal start, by QR decomposition (arXiv:2406.01775).

    Before the first step the model computes what it did, but for rounding. The adapter that is delivered is a plain LoRA
    of twice the rank: it holds what was learned, on the base as it was.
    """

    def start(self) -> str:
        """The first columns of Q, the first rows of R."""
        return "olora"
