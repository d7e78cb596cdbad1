"""KTO: single answers that are known to be good or bad, weighed as people weigh gains and losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import PositiveFloat

from tasks import accounting
from tasks.finetune.lesson import Given
from tasks.finetune.preference.arithmetic import scored
from tasks.finetune.preference.rows import Answered, Kind, answered
from tasks.finetune.preference.sides import Halves, SidesObjective
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config

Judged = tuple[Answered, bool]
"""An answer, and whether it is a good one."""


def judged(row: dict[str, Any], tokenizer: Any) -> Judged:
    """The answer of a row, and its label."""
    return answered(row["prompt"], row["completion"], tokenizer), bool(row["label"])


class Kto(SidesObjective):
    """Make good answers likelier and bad ones less likely, with no pairs needed (arXiv:2402.01306).

    How far the model has drifted is estimated on foreign answers: each prompt of a batch with the answer of the one before.
    """

    kind: ClassVar[Kind] = Kind(
        "unpaired",
        "answers that are labelled good or bad",
        "prompt, completion and label",
        judged,
        lambda one: (len(one[0].ids), len(one[0].answer)),
    )
    learns_from: ClassVar[str] = kind.folder
    columns: ClassVar[tuple[str, ...]] = ("rewards/chosen", "rewards/rejected", "rewards/margins", "kl")
    least: ClassVar[int] = 2

    beta: PositiveFloat = 0.1
    """How dear it is to differ from the base model."""
    desirable_weight: PositiveFloat = 1.0
    """Weight of good answers, where there are fewer or more of them."""
    undesirable_weight: PositiveFloat = 1.0
    """Weight of bad answers."""

    def refuse(self, batch_size: int, context_length: int) -> Iterator[str]:
        """One row has no foreign answer."""
        if batch_size < self.least:
            yield (
                f"finetune.batch_size: found {batch_size}; objective kto pairs a prompt with the answer of another row of its "
                "batch: set it to 2 or more"
            )

    def sides(self, examples: list[Judged]) -> list[tuple[Answered, Answered]]:
        """Each answer, and the same prompt with the answer of the row before."""
        own = [answer for answer, _ in examples]
        return [
            (one, Answered(one.prompt, before.answer)) for one, before in zip(own, [own[-1], *own[:-1]], strict=True)
        ]

    def beside(self, examples: list[Judged]) -> dict[str, Any]:
        """Labels (B,)."""
        import torch

        return {"label": torch.tensor([good for _, good in examples])}

    def trainer(self, model: Any, reference: Any, given: Given) -> Any:
        """`trl.KTOTrainer`."""
        from trl import KTOConfig, KTOTrainer

        from tasks.finetune.preference.trainers import ASKED, SAID, built

        more = {"ref_model": reference, "train_dataset": ASKED | {"completion": SAID, "label": True}}
        size = max(self.least, given.batch_size)
        fields = {"max_length": None, "per_device_train_batch_size": size} | self.model_dump()
        return built(KTOTrainer, KTOConfig, model, given, more, **fields)

    def asked(self, ids: Halves, answers: Halves, real: Halves, extras: dict[str, Any]) -> dict[str, Any]:
        """Answers, and foreign ones."""
        made = {"label": extras["label"]}
        for name, tokens, said, text in zip(("", "KL_"), ids, answers, real, strict=True):
            made |= {f"{name}input_ids": tokens, f"{name}completion_mask": said, f"{name}attention_mask": text}
        return made

    def flops_per_token(self, technique: FinetuneTechnique, config: Config, context: int, labelled: float) -> float:
        """Answers forward and back; they in the base model, and foreign ones in both, forward."""
        forward = accounting.forward_flops_per_token(config, context)
        return (scored(technique, config, context) + 3 * forward) / 2
