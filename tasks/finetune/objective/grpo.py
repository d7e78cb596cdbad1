"""GRPO: several answers to a question are sampled, and those made likelier that are worth more than the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from tasks import accounting
from tasks.finetune.lesson import FinetuneObjective, Given, Lesson
from tasks.finetune.preference.arithmetic import scored
from tasks.finetune.preference.rewards import REWARDS
from tasks.finetune.technique import FinetuneTechnique
from tasks.models import Config
from tasks.models.chat import padded


class Grpo(FinetuneObjective):
    """Sample answers, reward them, and learn what is better than its group's mean (arXiv:2402.03300).

    One optimizer step for each sampling: the policy that is trained is the one that answered, so no ratio is clipped. A step
    asks `finetune.batch_size` questions, `num_generations` times each.
    """

    learns_from: ClassVar[str] = "verifiable"

    num_generations: int = Field(default=8, ge=2)
    """Answers to every question; their mean reward is what each is measured against."""
    max_completion_length: PositiveInt = 64
    """Longest answer in tokens; a longer one is cut off."""
    temperature: PositiveFloat = 1.0
    """Of sampling: logits are divided by it."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample from the likeliest tokens that have this much probability together."""
    rewards: tuple[str, ...] = ("exact_match",)
    """What an answer is worth, added up: exact_match, last_line_match, numeric_match, similarity."""
    beta: float = Field(default=0.0, ge=0)
    """How dear it is to differ from the base model; 0 asks no base model."""
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "dapo"
    """How the losses of tokens are averaged, by trl's names; grpo: within each answer, then over answers."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Whose standard deviation rewards are divided by."""
    mask_truncated_completions: bool = False
    """Whether answers that were cut off teach nothing."""

    @field_validator("rewards")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or (unknown := [name for name in names if name not in REWARDS]):
            found = ", ".join(unknown) if names else "none"
            raise ValueError(f"found {found}; rewards are {', '.join(REWARDS)}")
        return names

    @property
    def sequences(self) -> int:
        """Answers to a question."""
        return self.num_generations

    @property
    def written(self) -> int:
        """A group's answers are written side by side."""
        return self.max_completion_length

    @property
    def asks_base(self) -> bool:
        """Where differing from it costs anything."""
        return self.beta > 0

    def length(self, chat: int, labelled: float) -> int:
        """The question of a chat, and the longest answer."""
        return padded(round(chat * (1 - labelled))) + padded(self.max_completion_length)

    def lesson(self, given: Given) -> Lesson:
        """Questions at work."""
        from tasks.finetune.preference.rollouts import Questions

        return Questions(self, given)

    def refuse(self, batch_size: int, context_length: int) -> Iterator[str]:
        """No room for a question."""
        if self.max_completion_length >= context_length:
            yield (
                f"finetune.objective.grpo.max_completion_length: found {self.max_completion_length}; question and answer have "
                f"{context_length} tokens (finetune.context_length): lower it, or raise the context"
            )

    def flops_per_token(self, technique: FinetuneTechnique, config: Config, context: int, labelled: float) -> float:
        """Sampled, then forward and back; and forward in the base model where `beta` asks for it."""
        forward = accounting.forward_flops_per_token(config, context)
        return scored(technique, config, context) + forward * (2 if self.beta else 1)
