"""Training objectives, one file each; pretrain chooses one by name."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.objectives.distillation import Distillation
from tasks.objectives.multi_token import MultiToken
from tasks.objectives.next_token import NextToken


class ObjectiveChoice(Choice):
    """What is learned from a token's surroundings."""

    method: str = "next_token"
    """Objective by name."""
    next_token: NextToken = NextToken()
    multi_token: MultiToken = MultiToken()
    distillation: Distillation = Distillation()
