"""Stage pretrain: blueprint (or an existing model) and token shards in, base model out."""

from __future__ import annotations

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tasks.core.schema import Section
from tasks.training.schedule import Schedule


class Pretrain(Section):
    """Next-token training."""

    init: str = "data/none"
    """An existing model to start from: its folder, or a `.yaml` that says where to get it; `data/none`: none."""
    steps: NonNegativeInt = 350
    """Optimizer steps; 0 passes the model through unchanged."""
    batch_size: PositiveInt = 16
    """Sequences per step."""
    context_length: PositiveInt = 256
    """Tokens per sequence."""
    learning_rate: PositiveFloat = 1.5e-3
    """Peak learning rate."""
    schedule: Schedule = Schedule()
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices (AdamW)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging coefficients."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient's global norm to this."""
    precision: str = Field(default="auto", pattern="^(auto|fp32|bf16)$")
    """Arithmetic of the forward pass: auto takes bf16 where the machine multiplies it natively."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints to resume from."""
    eval_every: PositiveInt = 100
    """Steps between validation losses."""

    @model_validator(mode="after")
    def _betas_below_one(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas {self.betas} must lie in [0, 1)")
        return self
