"""A training run as the predictions see it: how many steps of how many tokens, and what is trained."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting.memory import Learning


@dataclass(frozen=True)
class Steps:
    """A training run.

    Attributes:
        count: optimizer steps.
        tokens: per step, padding included.
        context: tokens of a sequence.
        labelled: share of the tokens that have a label, and so logits.
        flops: per token, forward and backward.
        elements: intermediate elements an adapter adds per token.
        trained: trainable parameters.
        dtype: of the matrix products.
        checkpoints: how often trained weights and optimizer state are written.
        state: bytes of the optimizer's state.
        gradients: bytes of the gradients that live at once, were they float32.
        saved: parameters that are trained at some time, which a checkpoint holds.
        head: whether the output layer is trained.
        backward: whether anything is computed backward.
        learning: which blocks learn; None: all.
        lengths: how many different lengths of batch there are.
        longest: tokens of a sequence in the largest batch, which decides the memory; 0: `context`.
        most: tokens of the largest part of a step; 0: what the mean step and `longest` make of it.
        parts: that a step's batch is computed in.
        checkpointing: gradient checkpointing, `none | selective | full`.
        pure: whether weights, gradients and moments are bfloat16.
    """

    count: int
    tokens: float
    context: int
    labelled: float
    flops: float
    elements: float
    trained: int
    dtype: str
    checkpoints: int
    state: int
    gradients: int
    saved: int
    head: bool
    backward: bool = True
    learning: Learning | None = None
    lengths: int = 1
    longest: int = 0
    most: int = 0
    parts: int = 1
    checkpointing: str = "none"
    pure: bool = False

    @property
    def largest(self) -> int:
        """Tokens of a sequence in the largest batch."""
        return self.longest or self.context

    @property
    def checkpoint_bytes(self) -> int:
        """Everything trained at some time, and the optimizer's state."""
        return (2 if self.pure else 4) * self.saved + self.state
