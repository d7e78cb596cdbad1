"""Next-token prediction: the cross-entropy of every token given those before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.objectives.technique import Losses, Objective, ObjectiveTechnique


class NextToken(ObjectiveTechnique):
    """Predict the next token (GPT-2, Radford et al. 2019)."""

    def begin(self, model: Any, job: Job, teacher: Path | None = None) -> Objective:
        """Nothing beside the model is needed."""
        return NextTokenLoss()


class NextTokenLoss(Objective):
    """Cross-entropy, and what keeps experts equally busy where the model has some."""

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """`loss`, and `balance_loss`, which is in the total and not in `loss`."""
        from tasks.training.loss import training_losses

        loss, uneven = training_losses(model, inputs, labels, extras.get("documents"))
        if uneven is None:
            return Losses(loss, {"loss": loss})
        return Losses(loss + uneven, {"loss": loss, "balance_loss": uneven})
