"""Questions, sampled answers and their rewards: what GRPO learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks import accounting
from tasks.core.measure import Metrics, measured
from tasks.finetune.lesson import Given, Lesson
from tasks.finetune.preference.reference import Reference
from tasks.finetune.preference.rewards import REWARDS, told
from tasks.finetune.preference.rows import Kind, read
from tasks.models.chat import IGNORED, PADDED_TO, UNDATED, chat_text
from tasks.objectives.technique import Losses, Objective
from tasks.training.batch import Batch
from tasks.training.spikes import Spikes

if TYPE_CHECKING:
    from tasks.finetune.objective.grpo import Grpo

COLUMNS = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
)
"""What trl notes of a step, and the history shows."""

HELD = 64
"""Held-out questions that are asked before and after."""

Question = tuple[dict[str, Any], int]
"""A row, and the tokens of its prompt."""


def question(row: dict[str, Any], tokenizer: Any) -> Question:
    """A row with the size of its prompt."""
    prompt = chat_text(tokenizer, row["prompt"], True)
    return row, len(tokenizer(prompt, add_special_tokens=False)["input_ids"])


class Questions(Lesson):
    """Questions whose answers can be verified."""

    spikes = Spikes(deviations=None)  # the loss is near 0 all the time: nothing is far above it by itself

    def __init__(self, fields: Grpo, given: Given) -> None:
        self.fields, self.given = fields, given
        self._reference: Reference | None = None
        kind = Kind(
            fields.learns_from,
            "questions with answers that can be verified",
            "prompt and answer",
            question,
            lambda one: (one[1] + fields.max_completion_length, len(one[0]["answer"].strip())),
        )
        self.train, self.held = read(given, kind, "grpo")
        self._made: tuple[int, Batch] | None = None

    def meet(self, base: Any) -> None:
        """Keep the base as it is now."""
        if self.fields.beta:
            self._reference = Reference(base)

    def begin(self, model: Any) -> None:
        """Have trl sample from it."""
        self.trainer = trainer = self._trainer(model)
        if self._reference is not None:
            from trl.trainer.utils import add_fused_lm_head

            self._reference.part(self.given.reload)
            add_fused_lm_head(self._reference.model, temperature=self.fields.temperature)
            trainer.beta, trainer.ref_model = self.fields.beta, self._reference.model
        self.objective = self._loss = RewardLoss(trainer, model, bool(self.fields.beta))

    def _trainer(self, model: Any) -> Any:
        """A trainer without a reference model: it would keep another copy of the adapter, or of the model, for it."""
        from trl import GRPOConfig, GRPOTrainer

        from tasks.finetune.preference.trainers import ASKED, built

        fields = self.fields.model_dump(exclude={"rewards", "beta"})
        rewards = [told(REWARDS[name]) for name in self.fields.rewards]
        return built(
            GRPOTrainer,
            GRPOConfig,
            model,
            self.given,
            {"reward_funcs": rewards, "train_dataset": ASKED | {"answer": "2"}},
            per_device_train_batch_size=self.given.batch_size * self.fields.num_generations,
            pad_to_multiple_of=PADDED_TO,
            chat_template_kwargs={"strftime_now": UNDATED.strftime},
            beta=0.0,
            **fields,
        )

    def batch(self, step: int) -> Batch:
        """Answers to a step's questions, sampled from the model as it is, with their advantages."""
        if self._made is None or self._made[0] != step:
            rows, given = self.train.examples, self.given
            chosen = given.deal([1] * len(rows)).numbers(step)
            self._made = step, self._sampled([rows[index] for index in chosen], step)
        return self._made[1]

    def _sampled(self, questions: list[Question], number: int) -> Batch:
        import torch

        rows = [row for row, _ in questions for _ in range(self.fields.num_generations)]
        with torch.random.fork_rng():  # asked for once or twice, a step finds the same state
            torch.manual_seed(self.given.seed * 1_000_003 + number)
            made = self.trainer._prepare_inputs(rows)
        self._loss.sampled(made)
        return _as_batch(made)

    def validate(self) -> Metrics:
        """What sampled answers to held-out questions are worth, and how long they are."""
        import torch

        held, size = self.held.examples[:HELD], self.given.batch_size
        if not held:
            return {}
        model, trainer = self.trainer.model, self.trainer
        model.eval()
        rewards, lengths = 0.0, 0.0
        with torch.random.fork_rng():
            torch.manual_seed(self.given.seed)
            for at in range(0, len(held), size):
                part = [row for row, _ in held[at : at + size] for _ in range(self.fields.num_generations)]
                made = trainer._prepare_inputs(part)
                noted = self._loss.noted()
                rewards += noted["reward"] * len(part)
                lengths += float(made["completion_mask"].sum())
        answers = len(held) * self.fields.num_generations
        note = f"{answers} answers to {len(held)} held-out questions; {' + '.join(self.fields.rewards)}"
        return {
            "mean_reward": measured(rewards / answers, note),
            "completion_tokens": measured(lengths / answers, note),
        }

    def metrics(self) -> Metrics:
        """Rows that were left out."""
        return self.train.metrics()


def _as_batch(made: dict[str, Any]) -> Batch:
    """What trl sampled, as the loop wants it: question and answer in a row, the answer's tokens labelled."""
    import torch

    inputs = torch.cat([made["prompt_ids"], made["completion_ids"]], dim=1)
    real = torch.cat([made["prompt_mask"], made["completion_mask"]], dim=1)
    asked, rows = made["prompt_ids"].shape[1], len(inputs)
    labels = inputs.masked_fill(real == 0, IGNORED)
    labels[:, :asked] = IGNORED
    extras = {
        "real": real,
        "asked": torch.full((rows,), asked, device=inputs.device),
        "advantages": made["advantages"],
        "items": made["num_items_in_batch"].expand(rows),
    }
    if "ref_per_token_logps" in made:
        extras["reference"] = made["ref_per_token_logps"]
    return Batch(inputs, labels, extras)


class RewardLoss(Objective):
    """A trainer's loss as the loop wants it, and the FLOPs of sampling.

    Args:
        trainer: trl's.
        model: that answers.
        refers: whether a base model is asked about every answer.
    """

    ahead = 2
    outside = True
    outside_is = "sampling, and the base model's where it is asked, by arithmetic from its config, without adapters"

    def __init__(self, trainer: Any, model: Any, refers: bool) -> None:
        super().__init__()
        self.trainer, self.refers, self._flops = trainer, refers, 0.0
        self.columns = (*COLUMNS, "kl") if refers else COLUMNS
        self.config = model.config.to_dict()

    def noted(self) -> dict[str, float]:
        """What the trainer noted since it was last asked."""
        from tasks.finetune.preference.trainers import shown

        return shown(self.trainer, self.columns)

    def sampled(self, made: dict[str, Any]) -> None:
        """Add the FLOPs of what was sampled: a prompt read, then token by token until the last answer ended."""
        rows, asked = made["prompt_ids"].shape
        steps = int(made["completion_mask"].sum(1).max())
        read = accounting.read(self.config)
        prompt = asked * accounting.forward_flops_per_token(self.config, asked) - (asked - 1) * read.head_matrix.flops
        told = sum(accounting.decode_flops_per_token(self.config, asked + step) for step in range(1, steps))
        self._flops += rows * (prompt + told)
        if self.refers:
            length = asked + made["completion_ids"].shape[1]
            self._flops += rows * length * accounting.forward_flops_per_token(self.config, length)

    def spent(self) -> float:
        """FLOPs of sampling since this was last asked."""
        flops, self._flops = self._flops, 0.0
        return flops

    def rehearsal(self, inputs: Any) -> dict[str, Any]:
        """A question of one token, the rest its answer."""
        import torch

        rows, length = inputs.shape
        ones = torch.ones(rows, device=inputs.device)
        extras = {
            "real": torch.ones_like(inputs),
            "asked": torch.ones_like(inputs[:, 0]),
            "advantages": ones,
            "items": ones * (length - 1),
        }
        return extras | ({"reference": torch.zeros(rows, length - 1, device=inputs.device)} if self.refers else {})

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """`loss` is the objective's own; beside it what the answers were worth."""
        import torch

        asked = int(extras["asked"][0])
        (prompt, answer), (before, after) = (
            x.split([asked, x.shape[1] - asked], dim=1) for x in (inputs, extras["real"])
        )
        told = {
            "prompt_ids": prompt,
            "completion_ids": answer,
            "prompt_mask": before,
            "completion_mask": after,
            "advantages": extras["advantages"],
            "num_items_in_batch": extras["items"][0],
        }
        if self.refers:
            told["ref_per_token_logps"] = extras["reference"]
        total = self.trainer.compute_loss(model, told)
        return Losses(total, {"loss": total, **{name: torch.tensor(value) for name, value in self.noted().items()}})
