"""What every finetuning objective can do: turn the rows of its kind into batches and a loss, and say how well they are learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.core.schema import Technique
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config
from tasks.models.packing import Dealer
from tasks.objectives.technique import Objective
from tasks.training.spikes import Spikes


@dataclass
class Rows:
    """The examples of one split and what was left out, with why."""

    examples: list[Any] = field(default_factory=list)
    too_long: int = 0
    without_answer: int = 0
    refused: int = 0

    def metrics(self) -> Metrics:
        """Rows that were left out."""
        note = (
            f"{self.too_long} too long, {self.without_answer} without an answer, {self.refused} refused by the template"
        )
        return {"chats_dropped": counted(self.too_long + self.without_answer + self.refused, note)}


@dataclass(frozen=True)
class Given:
    """What an objective is given.

    Attributes:
        data: what the data stage left.
        tokenizer: of the base model.
        context_length: tokens of the longest row.
        batch_size: rows per step, as the objective counts them.
        seed: of the order of rows.
        precision: resolved: no `auto`.
        job: whose folder outlives a kill.
        reload: loads the base model anew.
        packed: whether chats share rows.
        deal: of chats of those lengths in tokens, what deals them to the steps.
    """

    data: Path
    tokenizer: Any
    context_length: int
    batch_size: int
    seed: int
    precision: str
    job: Job
    reload: Callable[[], Any]
    packed: bool
    deal: Callable[[Sequence[int]], Dealer]


class Lesson:
    """An objective at work on its rows.

    Attributes:
        objective: what the loop makes of a batch; None: the next token's loss.
        spikes: which losses are too far above the ones before.
        packed: whether its rows hold several chats.
        watched: the validation loss of the model as it is, to be looked at while it is trained; None: nothing is.
    """

    objective: Objective | None = None
    spikes: Spikes = Spikes()
    packed: bool = False
    watched: Callable[[], float] | None = None

    def meet(self, base: Any) -> None:
        """Told of the base model before a technique adapts it."""

    def begin(self, model: Any) -> None:
        """Told of the model that will be trained.

        Raises:
            ValueError: it can't be trained this way; says why.
        """

    def batch(self, step: int) -> Any:
        """The batch of a number, as the loop wants it; the same for the same number and the same weights."""
        raise NotImplementedError

    def validate(self) -> Metrics:
        """How well held-out rows are mastered by the model as it is; nothing where none are held out."""
        return {}

    def metrics(self) -> Metrics:
        """What the ledger should know of the rows."""
        raise NotImplementedError


class FinetuneObjective(Technique):
    """What is learned from which rows. Fields are what upstream calls them.

    Attributes:
        learns_from: kind of its rows, by its name in `tasks.data.kinds`.
        of_chats: whether it learns from whole chats, whose lengths are known once the data stage is done.
        whole_logits: whether all logits of a step are in memory at once.
        sequences: computed for each row of a batch.
        written: tokens that are sampled one after the other, at most, for a step.
        asks_base: whether the base model is asked about what is learned.
    """

    learns_from: ClassVar[str]
    of_chats: ClassVar[bool] = False
    whole_logits: ClassVar[bool] = False

    @property
    def sequences(self) -> int:
        """One."""
        return 1

    @property
    def written(self) -> int:
        """None."""
        return 0

    @property
    def asks_base(self) -> bool:
        """It isn't."""
        return False

    def length(self, chat: int, labelled: float) -> int:
        """Tokens of a sequence made of a chat of so many, of which a share `labelled` is the answer."""
        return chat

    def lesson(self, given: Given) -> Lesson:
        """The objective at work.

        Raises:
            UserError: there is nothing of its kind to learn from.
        """
        raise NotImplementedError

    def refuse(self, batch_size: int, context_length: int) -> Iterator[str]:
        """One sentence per value that can't go with the others: what was found where, and what to do. No torch."""
        yield from ()

    def flops_per_token(self, technique: FinetuneTechnique, config: Config, context: int, labelled: float) -> float:
        """FLOPs of a token that is trained on, in a row of `context`, everything that is computed for it included."""
        raise NotImplementedError
