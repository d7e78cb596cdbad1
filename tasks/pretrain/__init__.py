"""Stage pretrain: blueprint (or an existing model) and token shards in, base model out."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tasks.core.schema import Section
from tasks.objectives import ObjectiveChoice
from tasks.optimizers import Optimizer
from tasks.pretrain.sampling import Sampling
from tasks.training.parallel import Parallel
from tasks.training.schedule import Schedule
from tasks.training.spikes import Spikes


class Pretrain(Section):
    """Training on text."""

    init: str = "data/none"
    """An existing model to start from: its folder, or a `.yaml` that says where to get it; `data/none`: none."""
    teacher: str = "data/none"
    """A model to learn from under `objective.method: distillation`: its folder, or a `.yaml` that says where to get it; `data/none`: none."""
    steps: NonNegativeInt = 350
    """Optimizer steps; 0 passes the model through unchanged."""
    batch_size: PositiveInt = 16
    """Sequences per step, all workers together."""
    context_length: PositiveInt = 256
    """Tokens per sequence."""
    learning_rate: PositiveFloat = 1.5e-3
    """Peak learning rate."""
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    objective: ObjectiveChoice = ObjectiveChoice()
    sampling: Sampling = Sampling()
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of matrices."""
    max_grad_norm: PositiveFloat = 1.0
    """Clip the gradient's global norm to this."""
    precision: str = Field(default="auto", pattern="^(auto|fp32|bf16|fp16|bf16_pure|fp8)$")
    """Arithmetic: auto takes bf16 where the machine multiplies it natively; bf16_pure keeps weights in bf16, rounded stochastically."""
    compile: str = Field(default="auto", pattern="^(auto|on|off)$")
    """Compile the model's blocks (torch.compile); auto: where it pays within this run."""
    gradient_accumulation_steps: PositiveInt = 1
    """Parts a step's batch is computed in, one after the other: less memory, the same gradient."""
    gradient_checkpointing: str = Field(default="none", pattern="^(none|selective|full)$")
    """What is computed again in the backward pass instead of kept: nothing, all but matrix products, whole blocks (arXiv:1604.06174)."""
    spikes: Spikes = Spikes()
    parallel: Parallel = Parallel()
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints to resume from."""
    keep_checkpoints: PositiveInt = 2
    """Checkpoints that are kept; older ones are removed."""
    eval_every: PositiveInt = 100
    """Steps between validation losses."""
