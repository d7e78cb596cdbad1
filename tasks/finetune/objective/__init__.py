"""Finetuning objectives, one file each; finetune chooses one by name."""

from __future__ import annotations

from tasks.core.schema import Choice
from tasks.finetune.objective.dpo import Dpo
from tasks.finetune.objective.grpo import Grpo
from tasks.finetune.objective.kto import Kto
from tasks.finetune.objective.orpo import Orpo
from tasks.finetune.objective.sft import Sft


class FinetuneObjectiveChoice(Choice):
    """What is learned: answers themselves, which of two is better, or whatever is rewarded."""

    method: str = "sft"
    """Objective by name."""
    sft: Sft = Sft()
    dpo: Dpo = Dpo()
    orpo: Orpo = Orpo()
    kto: Kto = Kto()
    grpo: Grpo = Grpo()
