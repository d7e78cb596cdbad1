"""Every size of every family that may be within reach, each predicted at two lengths of training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from math import lcm
from pathlib import Path
from typing import Any

from tasks import accounting
from tasks.compatibility import check
from tasks.core.errors import UserError
from tasks.core.measure import Metrics
from tasks.design.family import Family
from tasks.ledger import predict
from tasks.ledger.machine import Machine
from tasks.ledger.predict.subject import Subject, subject
from tasks.ledger.predict.text import Text, source_text
from tasks.ledger.scores import Scores, read
from tasks.params import Params
from tasks.planner import configure
from tasks.planner.candidates import Candidate, Figures, Shape
from tasks.planner.constraints import Constraints, Figure, Limit
from tasks.planner.figures import figures
from tasks.planner.quality import Quality
from tasks.scaling import law
from tasks.scaling.ladder import learning_rate
from tasks.scaling.plan import DATA

APART = 1.25
"""A size is tried if it has that many times the parameters of the last one."""

PROBES = (1000, 11000)
"""About how many steps a size is predicted for; between and beyond the two, costs are linear in the steps."""

BARREN = 4
"""After so many sizes in a row that the lifecycle can't carry, larger ones are not tried."""

Stages = dict[str, Metrics]


@dataclass
class Field:
    """What candidates are drawn from.

    Attributes:
        params: the configuration that is planned for.
        machine: where it runs.
        source: the text there is.
        scores: of earlier runs on it, which correct predictions.
        quality: predicts bits per byte.
        vocab: tokens of the vocabulary.
        left_out: reason -> how many candidates the last call of `shapes` left out for it.
    """

    params: Params
    machine: Machine
    source: Text
    scores: Scores
    quality: Quality
    vocab: int
    left_out: Counter[str] = field(default_factory=Counter)

    def shapes(self, constraints: Constraints, slack: float) -> list[Shape]:
        """Shapes of every family, until they exceed `slack` times the limits."""
        limits = [one.relaxed(slack) for one in constraints.limits if one.figure != "bits_per_byte"]
        self.left_out.clear()
        names = configure.chosen_families(constraints.families)
        return [shape for name in names for shape in self._rungs(name, constraints.context, limits)]

    def exactly(self, candidate: Candidate) -> Candidate:
        """The same candidate, predicted at its own steps instead of between two others."""
        shape = candidate.shape
        params = configure.with_steps(shape.params, candidate.steps)
        found = figures(self.stages(params), params, shape.config, self.machine, shape.context)
        return replace(candidate, figures={**found, "bits_per_byte": candidate.bits_per_byte})

    def values(self, candidate: Candidate) -> dict[str, Any]:
        """What params.yaml must say for it, the learning rate of its width among it."""
        there = self._subject(self.params).config
        rate = learning_rate(self.params.pretrain.learning_rate, there, candidate.shape.config)
        return candidate.values | {"pretrain.learning_rate": rate}

    def stages(self, params: Params, only: Collection[str] = tuple(predict.STAGES)) -> dict[str, Metrics]:
        """Those stages' predictions."""
        return predict.plan(params, self.machine, self.source, self.scores, only)

    def _rungs(self, name: str, context: int | None, limits: list[Limit]) -> Iterator[Shape]:
        last, beyond, barren = 0.0, 0, 0
        for member in getattr(self.params.design, name).ladder():
            size = accounting.parameters(member.config(self.vocab))
            if size < APART * last:
                continue
            last = size
            found = self._rung(name, member, context)
            yield from found
            barren = barren + 1 if not found else 0
            beyond = beyond + 1 if found and not any(shape.longest(limits) for shape in found) else 0
            if beyond == 2 or barren == BARREN:
                return

    def _rung(self, name: str, member: Family, context: int | None) -> list[Shape]:
        """One size with every type of file; the reason in `left_out` where the lifecycle can't carry one.

        What training takes doesn't depend on that type: it is predicted once.
        """
        values = configure.sized(self.params, name, member) | configure.reading(self.params, name, context)
        found: list[Shape] = []
        plans: tuple[Stages, Stages] | None = None
        for kind in configure.kinds(self.params):
            try:
                params = configure.configured(self.params, {**values, **kind})
                config = self._subject(params).config
                check(params, config, data=False)
                plans = self._plans(params, plans)
                base, slope = self._line(plans, params, config, context)
            except UserError as error:
                self.left_out[error.message.replace("\n", "; ")] += 1
                continue
            sizes = accounting.active_parameters(config) - accounting.embedding_parameters(config)
            found.append(
                Shape(
                    family=name,
                    values={**values, **kind},
                    params=params,
                    config=config,
                    context=context,
                    parameters=accounting.parameters(config),
                    active=max(1, sizes),
                    base=base,
                    per_step=slope,
                    quality=self.quality,
                )
            )
        return found

    def _plans(self, params: Params, known: tuple[Stages, Stages] | None) -> tuple[Stages, Stages]:
        """Every stage's prediction at few and at many steps; of `known` ones only the last stages are made anew."""
        few, many = (configure.with_steps(params, steps) for steps in probes(params))
        low = self.stages(few) if known is None else {**known[0], **self.stages(few, ("compress", "deploy_profile"))}
        return low, {**low, "pretrain": known[1]["pretrain"] if known else self.stages(many, ("pretrain",))["pretrain"]}

    def _line(
        self, plans: tuple[Stages, Stages], params: Params, config: dict[str, Any], context: int | None
    ) -> tuple[Figures, dict[Figure, float]]:
        """Figures at no steps, and what a step adds."""
        few, many = probes(params)
        low, high = (figures(plan, params, config, self.machine, context) for plan in plans)
        pairs = {figure: (value, high[figure]) for figure, value in low.items()}
        slope = {f: (b - a) / (many - few) for f, (a, b) in pairs.items() if a is not None and b is not None}
        return {f: None if v is None else v - slope.get(f, 0.0) * few for f, v in low.items()}, slope

    def _subject(self, params: Params) -> Subject:
        return subject(params, self.machine, self.source)


def probes(params: Params) -> tuple[int, int]:
    """Steps to predict at: just after a checkpoint and a validation, so that the line between lies above all others."""
    beat = lcm(params.pretrain.checkpoint_every, params.pretrain.eval_every)
    few = -(-PROBES[0] // beat) * beat
    return few, few + max(1, (PROBES[1] - PROBES[0]) // beat) * beat


def survey(params: Params, machine: Machine) -> Field:
    """What can be drawn from with this configuration on this machine.

    Raises:
        UserError: the text isn't there yet, or the model is an existing one.
    """
    configure.check_plannable(params)
    source = source_text(Path(params.data.source))
    about = subject(params, machine, source)
    distinct = about.train_tokens * about.bytes_per_token
    fitted = law.load()
    if fitted is not None and (fitted.unsure or not fitted.speaks_of(DATA)):
        fitted = None  # it speaks of another text, or of nothing far from its own runs
    return Field(
        params, machine, source, read(machine.name), Quality(fitted, about.bytes_per_token, distinct), about.vocab
    )
