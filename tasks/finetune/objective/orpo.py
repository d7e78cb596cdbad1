"""ORPO: learn the better answer, and its odds against the worse, without a reference model."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from pydantic import PositiveFloat

from tasks.finetune.lesson import Given
from tasks.finetune.preference.sides import Halves, SidesObjective
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config


class Orpo(SidesObjective):
    """Learn chosen answers and their odds against rejected ones, in one loss (arXiv:2403.07691).

    trl has all logits of a step in memory at once here, several times over.
    """

    refers: ClassVar[bool] = False
    sees_padding: ClassVar[bool] = True
    whole_logits: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = (*SidesObjective.columns, "nll_loss", "log_odds_ratio", "log_odds_chosen")

    beta: PositiveFloat = 0.1
    """Weight of the odds beside the loss of the chosen text; the paper calls it lambda."""

    def trainer(self, model: Any, reference: Any, given: Given) -> Any:
        """`trl.experimental.orpo.ORPOTrainer`."""
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        from tasks.finetune.preference.trainers import built

        return built(ORPOTrainer, ORPOConfig, model, given, {}, remove_unused_columns=False, **self.model_dump())

    def asked(self, ids: Halves, answers: Halves, real: Halves, extras: dict[str, Any]) -> dict[str, Any]:
        """Chosen and rejected rows by name."""
        import torch

        from tasks.models.chat import IGNORED

        made = {}
        for name, tokens, said, text in zip(("chosen", "rejected"), ids, answers, real, strict=True):
            made[f"{name}_input_ids"], made[f"{name}_attention_mask"] = tokens, text
            made[f"{name}_labels"] = torch.where(said == 1, tokens, IGNORED)
        return made

    def flops_per_token(self, technique: FinetuneTechnique, config: Config, context: int, labelled: float) -> float:
        """Forward and back, with the logits of every position."""
        return technique.flops_per_token(config, context, 1.0)
