"""Lessons in which a row is two sequences side by side: chosen and rejected, or a completion and a foreign one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from tasks.core.measure import Metrics, measured
from tasks.finetune.lesson import FinetuneObjective, Given, Lesson
from tasks.finetune.preference.reference import Reference
from tasks.finetune.preference.rows import PAIRS, Answered, Kind, read
from tasks.models.chat import IGNORED, padded
from tasks.objectives.technique import Losses, Objective
from tasks.training.batch import Batch

Halves = tuple[Any, Any]
"""Left and right of something (B, 2 T), each (B, T)."""

MEASURED = {"rewards/accuracies": "reward_accuracy", "rewards/margins": "reward_margin"}
"""What trl notes of held-out rows -> its name in the ledger."""


class SidesObjective(FinetuneObjective):
    """An objective on two sequences a row.

    Attributes:
        kind: rows it learns from.
        refers: whether it asks a reference model.
        sees_padding: whether its loss has to know padding, beyond what causal attention hides of it.
        least: rows a batch must have.
        columns: what trl notes of a step, and the history shows.
    """

    kind: ClassVar[Kind] = PAIRS
    learns_from: ClassVar[str] = kind.folder
    refers: ClassVar[bool] = True
    sees_padding: ClassVar[bool] = False
    least: ClassVar[int] = 1
    columns: ClassVar[tuple[str, ...]] = (
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    )

    @property
    def method(self) -> str:
        """Its name in the registry: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def sequences(self) -> int:
        """Two."""
        return 2

    @property
    def asks_base(self) -> bool:
        """As the class says."""
        return self.refers

    def lesson(self, given: Given) -> Lesson:
        """Pairs at work."""
        return Sides(self, given)

    def sides(self, examples: list[Any]) -> list[tuple[Answered, Answered]]:
        """The two sequences of every example of a batch."""
        return examples

    def beside(self, examples: list[Any]) -> dict[str, Any]:
        """Further tensors of a batch, by name."""
        return {}

    def trainer(self, model: Any, reference: Any, given: Given) -> Any:
        """A trainer of trl.

        Raises:
            ValueError: it can't train this model.
        """
        raise NotImplementedError

    def asked(self, ids: Halves, answers: Halves, real: Halves, extras: dict[str, Any]) -> dict[str, Any]:
        """What the trainer's loss wants to know: token ids, where they are an answer's, where they are no padding."""
        raise NotImplementedError


class Sides(Lesson):
    """Rows of two sequences, trl's loss of them."""

    def __init__(self, fields: SidesObjective, given: Given) -> None:
        self.fields, self.given = fields, given
        self._reference: Reference | None = None
        self.train, self.held = read(given, fields.kind, fields.method)

    def meet(self, base: Any) -> None:
        """Keep the base as it is now."""
        if self.fields.refers:
            self._reference = Reference(base)

    def begin(self, model: Any) -> None:
        """Have trl's loss of it."""
        self.model, reference = model, None
        if self._reference is not None:
            self._reference.part(self.given.reload)
            reference = self._reference.model
        self.objective = self._loss = SidesLoss(self.fields, self.fields.trainer(model, reference, self.given))

    def batch(self, step: int) -> Batch:
        """Rows of a step: every one once per epoch, in an order drawn anew for each."""
        examples, given = self.train.examples, self.given
        chosen = given.deal([1] * len(examples)).numbers(step)
        return self._batch([examples[index] for index in chosen])

    def _batch(self, examples: list[Any]) -> Batch:
        import torch

        sides = [
            [(one.ids[: self.given.context_length], len(one.prompt)) for one in both]
            for both in self.fields.sides(examples)
        ]
        length = padded(max(len(ids) for both in sides for ids, _ in both))
        inputs = torch.zeros(len(sides), 2 * length, dtype=torch.long)
        labels = torch.full_like(inputs, IGNORED)
        real = torch.zeros_like(inputs)
        for row, both in enumerate(sides):
            for start, (ids, asked) in zip((0, length), both, strict=True):
                end = start + len(ids)
                inputs[row, start:end] = torch.tensor(ids)
                labels[row, start + asked : end] = inputs[row, start + asked : end]
                real[row, start:end] = 1
        extras = {"real": real} | self.fields.beside(examples)
        device = self.model.device
        return Batch(inputs.to(device), labels.to(device), {name: value.to(device) for name, value in extras.items()})

    def validate(self) -> Metrics:
        """The loss on held-out rows, how often the better answer is preferred to the worse, and by how much."""
        import torch

        from tasks.models.device import autocast

        held, size = self.held.examples, self.given.batch_size
        least = self.fields.least
        parts = [held[at : at + size] for at in range(0, len(held), size) if len(held[at : at + size]) >= least]
        if not parts:
            return {}
        self.model.eval()
        sums: dict[str, list[float]] = {}
        with torch.no_grad(), autocast(self.given.precision):
            for part in parts:
                batch = self._batch(part)
                made = self._loss.losses(self.model, batch.inputs, batch.labels, batch.extras)
                for name, value in made.shown.items():
                    sums.setdefault(name, []).append(float(value) * len(part))
        count = sum(map(len, parts))
        return dict(_measured(sums, count))

    def metrics(self) -> Metrics:
        """Rows that were left out."""
        return self.train.metrics()


def _measured(sums: dict[str, list[float]], count: int) -> Iterator[tuple[str, Any]]:
    note = f"{count} held-out rows"
    yield "preference_loss", measured(sum(sums["loss"]) / count, note)
    for name, metric in MEASURED.items():
        mean = sum(sums.get(name, [float("nan")])) / count
        if mean == mean:
            yield metric, measured(mean, note)


class SidesLoss(Objective):
    """A trainer's loss as the loop wants it.

    Args:
        fields: of the objective.
        trainer: trl's.
    """

    ahead = 2

    def __init__(self, fields: SidesObjective, trainer: Any) -> None:
        super().__init__()
        self.fields, self.trainer = fields, trainer

    def rehearsal(self, inputs: Any) -> dict[str, Any]:
        """No padding."""
        import torch

        return {
            "real": torch.ones_like(inputs),
            "label": torch.ones(len(inputs), dtype=torch.bool, device=inputs.device),
        }

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """`loss` is the objective's own, in nats a row."""
        import torch

        from tasks.finetune.preference.trainers import shown

        answers, real = (labels != IGNORED).long(), extras["real"]
        if not (self.fields.sees_padding or self.trainer.aux_loss_enabled):
            real = torch.ones_like(real)  # it lies behind all text, and without a mask attention has a quicker way
        ids, said, real = (tensor.chunk(2, dim=1) for tensor in (inputs, answers, real))
        total = self.trainer.compute_loss(model, self.fields.asked(ids, said, real, extras))
        noted = {name: torch.tensor(value) for name, value in shown(self.trainer, self.fields.columns).items()}
        return Losses(total, {"loss": total, **noted})
