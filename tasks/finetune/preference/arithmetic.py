"""FLOPs of trl's losses, by arithmetic alone. No torch."""

from __future__ import annotations

from tasks.accounting.lora import head_flops
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config


def scored(technique: FinetuneTechnique, config: Config, context: int) -> float:
    """A token's forward and backward pass in a row of `context`, its answer's tokens scored as trl scores them.

    On a CPU that is the logits of every position, and again in the backward pass: they are never all in memory.
    """
    return technique.flops_per_token(config, context, 1.0) + head_flops(config)
