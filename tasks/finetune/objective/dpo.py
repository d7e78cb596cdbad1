"""DPO: the better answer made likelier than the worse, by more than the base model thinks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, PositiveFloat

from tasks import accounting
from tasks.finetune.lesson import Given
from tasks.finetune.preference.arithmetic import scored
from tasks.finetune.preference.sides import Halves, SidesObjective
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config


class Dpo(SidesObjective):
    """Prefer chosen answers to rejected ones, measured against the base model (arXiv:2305.18290)."""

    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down"
    ] = "sigmoid"
    """The loss of a pair, by trl's names; sigmoid is DPO's own."""
    beta: PositiveFloat = 0.1
    """How dear it is to differ from the base model; ipo calls it tau."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of pairs that are taken to be the wrong way round; losses robust and exo_pair alone know it."""

    def refuse(self, batch_size: int, context_length: int) -> Iterator[str]:
        """A smoothing the loss doesn't know, or one that is missing."""
        found = f"finetune.objective.dpo.label_smoothing: found {self.label_smoothing}; the loss {self.loss_type}"
        if self.label_smoothing and self.loss_type not in ("robust", "exo_pair"):
            yield f"{found} doesn't know it: set it to 0, or finetune.objective.dpo.loss_type to robust or exo_pair"
        if not self.label_smoothing and self.loss_type == "exo_pair":
            yield f"{found} needs one above 0: 0.001 is its paper's"

    def trainer(self, model: Any, reference: Any, given: Given) -> Any:
        """`trl.DPOTrainer`."""
        from trl import DPOConfig, DPOTrainer

        from tasks.finetune.preference.trainers import built

        more = {"ref_model": reference}
        return built(DPOTrainer, DPOConfig, model, given, more, max_length=None, **self.model_dump())

    def asked(self, ids: Halves, answers: Halves, real: Halves, extras: dict[str, Any]) -> dict[str, Any]:
        """Chosen rows above rejected ones."""
        import torch

        named = {"input_ids": ids, "completion_mask": answers, "attention_mask": real}
        return {name: torch.cat(both) for name, both in named.items()}

    def flops_per_token(self, technique: FinetuneTechnique, config: Config, context: int, labelled: float) -> float:
        """Forward and back, and the base model forward."""
        return scored(technique, config, context) + accounting.forward_flops_per_token(config, context)
