"""Techniques that train another part of the model every few steps."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from tasks.accounting import read
from tasks.accounting.memory import Learning
from tasks.accounting.partial import Part, part_flops_per_token, part_learning, part_shapes
from tasks.finetune.shared.parts import OwnWeights, largest, parameters_of
from tasks.finetune.technique import FinetuneTechnique, Plan, Shape, Tuning
from tasks.models import Config


class RotatingTuning(OwnWeights):
    """Parts of a model at work in turn.

    What is trained at a step follows from its number and the seed, so a resumed run goes on with the same part. The
    optimizer keeps no state of what rests.

    Args:
        model: the base.
        plan: of the run.
        technique: says which part is trained when.
    """

    def __init__(self, model: Any, plan: Plan, technique: Rotating) -> None:
        super().__init__(model, plan, technique.method)
        self.technique, self.config = technique, model.config.to_dict()
        self.part = technique.part_at(self.config, 0, plan.seed)
        self._ever = parameters_of(model, technique.ever(self.config))
        model.requires_grad_(False)
        for parameter in self._ever:
            parameter.requires_grad_(True)

    @property
    def regime(self) -> str:  # type: ignore[override]
        """What the FLOPs of the part at work depend on."""
        return self.part.kind(read(self.config))

    def trainable(self) -> int:
        """Parameters of the largest part: what is trained at a time at most."""
        return sum(
            parameter.numel()
            for parameter in parameters_of(self.model, largest(self.config, self.technique.cycle(self.config)))
        )

    def before_step(self, step: int, optimizer: Any) -> None:
        """Turn to the part of this step; what rests loses its state, and so does all at a change if state starts anew."""
        self.part = self.technique.part_at(self.config, step, self.plan.seed)
        active = set(parameters_of(self.model, self.part))
        anew = self.technique.anew and step % self.technique.every == 0
        for parameter in self._ever:
            parameter.requires_grad_(parameter in active)
            if anew or parameter not in active:
                optimizer.state.pop(parameter, None)


class Rotating(FinetuneTechnique):
    """What trains parts in turn.

    Attributes:
        anew: whether what is trained on is begun anew by the optimizer, even if it was trained just before.
    """

    frozen = False
    rotates = True
    anew: ClassVar[bool] = False

    @property
    def every(self) -> int:
        """Steps until the part may be another."""
        raise NotImplementedError

    def part_at(self, config: Config, step: int, seed: int) -> Part:
        """What is trained at a step; the same within `every` steps."""
        raise NotImplementedError

    def cycle(self, config: Config) -> list[Part]:
        """Parts that among them show every block as often as chance does."""
        raise NotImplementedError

    def ever(self, config: Config) -> Part:
        """Everything that is trained at some step."""
        return Part.joined(self.cycle(config))

    def begin(self, base: Any, plan: Plan) -> Tuning:
        """`base` with the parts trainable in turn."""
        return RotatingTuning(base, plan, self)

    def trained_shapes(self, config: Config) -> list[Shape]:
        """Those of the largest part that is trained at a time."""
        return part_shapes(config, largest(config, self.cycle(config)))

    def kept_shapes(self, config: Config) -> list[Shape]:
        """Of everything that is trained at some time."""
        return part_shapes(config, self.ever(config))

    def learning(self, config: Config) -> Learning:
        """That of the part whose gradient goes furthest down."""
        return min((part_learning(config, part) for part in self.cycle(config)), key=lambda found: found.first)

    def adapter_shapes(self, config: Config) -> list[Shape]:
        """All of it, if the run is long."""
        return self.kept_shapes(config)

    def delivered(self, config: Config, stored: int, steps: int, seed: int) -> list[tuple[Shape, int]]:
        """What has had its turn when the run ends."""
        return [(shape, stored) for shape in part_shapes(config, Part.joined(self._turns(config, steps, seed)))]

    def flops_per_token(self, config: Config, context: int, labelled: float) -> float:
        """The mean over the parts."""
        parts = self.cycle(config)
        return sum(part_flops_per_token(config, context, labelled, part) for part in parts) / len(parts)

    def mean_flops_per_token(self, config: Config, context: int, labelled: float, steps: int, seed: int) -> float:
        """The mean over the parts this very run trains, by their steps."""
        turns = self._turns(config, steps, seed)
        flops = sum(part_flops_per_token(config, context, labelled, part) * count for part, count in turns.items())
        return flops / max(1, steps)

    def _turns(self, config: Config, steps: int, seed: int) -> Counter[Part]:
        """Part -> steps it is trained for."""
        turns: Counter[Part] = Counter()
        for step in range(0, steps, self.every):
            turns[self.part_at(config, step, seed)] += min(self.every, steps - step)
        return turns
