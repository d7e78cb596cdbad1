"""Supervised finetuning: the loss of the next token, on the answers of chats alone."""

from __future__ import annotations

from typing import Any, ClassVar

from tasks.core.errors import UserError
from tasks.core.measure import Metrics, measured
from tasks.finetune.lesson import FinetuneObjective, Given, Lesson
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config


class Sft(FinetuneObjective):
    """Learn the answers of chats, token by token (arXiv:2203.02155)."""

    learns_from: ClassVar[str] = "chats"
    of_chats: ClassVar[bool] = True

    def lesson(self, given: Given) -> Lesson:
        """Chats to learn from.

        Raises:
            UserError: none fits, or the tokenizer has no chat template.
        """
        return Answers(given)

    def flops_per_token(self, technique: FinetuneTechnique, config: Config, context: int, labelled: float) -> float:
        """One pass forward and back."""
        return technique.flops_per_token(config, context, labelled)


class Answers(Lesson):
    """Chats with the loss on their answers."""

    def __init__(self, given: Given) -> None:
        from tasks.finetune import chats

        self.given, self.packed = given, given.packed
        self.train, self.held = (
            chats.read(given.data / "instructions" / f"{split}.jsonl", given.tokenizer, given.context_length)
            for split in ("train", "validation")
        )
        train = self.train
        if not train.examples:
            raise UserError(
                f"finetune: no chat to train on ({train.too_long} longer than finetune.context_length "
                f"{given.context_length} tokens, {train.without_answer} without an answer, {train.refused} refused by the chat template)",
                "raise finetune.context_length, or give data.source or data.instructions chats, or Python files",
            )
        self._dealt = given.deal([len(example.labels) for example in train.examples])

    def begin(self, model: Any) -> None:
        """Keep the model, to validate it."""
        from tasks.finetune.batches import Held

        self.model, given = model, self.given
        if self.held.examples:
            self._validation = Held(model, self.held.examples, given.batch_size, given.packed, given.precision)
            self.watched = self._validation.loss

    def batch(self, step: int) -> Any:
        """Chats of a step."""
        from tasks.finetune.batches import batch

        return batch(self.train.examples, self._dealt.step(step), self.model.device)

    def validate(self) -> Metrics:
        """Mean loss over the tokens of held-out answers."""
        if self.watched is None:
            return {}
        return {"validation_loss": measured(self.watched(), f"answers of {len(self.held.examples)} held-out chats")}

    def metrics(self) -> Metrics:
        """Chats that were left out."""
        return self.train.metrics()
