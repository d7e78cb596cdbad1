"""Multi-token prediction: light modules beside the model predict the tokens after the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import NonNegativeFloat, PositiveInt

from tasks.core.job import Job
from tasks.models.chat import IGNORED
from tasks.objectives.technique import Losses, Objective, ObjectiveTechnique


class MultiToken(ObjectiveTechnique):
    """Predict the next token and those after it, one module per depth in a chain (arXiv:2404.19737; arXiv:2412.19437).

    Fields have Megatron-LM's names. The modules share the model's embedding and output layer, and stay behind when
    training ends.
    """

    mtp_num_layers: PositiveInt = 1
    """Tokens predicted beyond the next."""
    mtp_loss_scaling_factor: NonNegativeFloat = 0.1
    """Weight of the mean of their losses beside the next token's; DeepSeek-V3 begins with 0.3 and ends with 0.1."""

    def begin(self, model: Any, job: Job, teacher: Path | None = None) -> Objective:
        """New modules beside `model`."""
        from tasks.objectives.parts.future import futures
        from tasks.training.loss import causal_of

        return MultiTokenLoss(futures(causal_of(model), self.mtp_num_layers), self.mtp_loss_scaling_factor)


class MultiTokenLoss(Objective):
    """Cross-entropies of the next token and of those after it.

    Args:
        depths: a module list, nearest token first.
        factor: weight of the mean of the depths' losses.
    """

    def __init__(self, depths: Any, factor: float) -> None:
        super().__init__({"depths": depths})
        self.depths, self.factor, self.ahead = depths, factor, len(depths)

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """`loss`, and `multi_token_loss`: the mean over depths of each depth's loss.

        A depth's sum is divided by the labels of the next token, as upstream divides by the sequence's length: parts of
        a batch then add up to the batch. Where documents have numbers, nothing is predicted across their borders.
        """
        from tasks.training.loss import causal_of, cross_entropy, decoded

        causal, documents = causal_of(model), extras.get("documents")
        hidden, uneven = decoded(model, inputs, labels, documents)
        loss = cross_entropy(causal, hidden, labels)
        embed, labelled, further = causal.get_input_embeddings(), (labels != IGNORED).sum(), 0.0 * loss
        for ahead, module in enumerate(self.depths, 1):
            if ahead >= inputs.shape[1]:
                break
            hidden = module(hidden[:, :-1], embed(inputs[:, ahead:]))
            wanted = labels[:, ahead:]
            if documents is not None:
                wanted = wanted.masked_fill(documents[:, ahead:] != documents[:, :-ahead], IGNORED)
            further = further + _share_of_mean(causal, module.norm(hidden), wanted, labelled)
        further = further / len(self.depths)
        shown = {"loss": loss, "multi_token_loss": further}
        total = loss + self.factor * further
        if uneven is None:
            return Losses(total, shown)
        return Losses(total + uneven, {**shown, "balance_loss": uneven})


def _share_of_mean(causal: Any, hidden: Any, wanted: Any, labelled: Any) -> Any:
    """Sum of cross-entropies over `labelled`; zero, and still a function of `hidden`, where nothing is wanted."""
    from tasks.training.loss import cross_entropy

    count = (wanted != IGNORED).sum()
    if not count:
        return 0.0 * hidden.sum()
    return cross_entropy(causal, hidden, wanted) * (count / labelled)
