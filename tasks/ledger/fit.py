"""Which settings make a lifecycle fit its budget: the mildest of one knob, or of several turned together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tasks.core.measure import Metrics
from tasks.ledger import budget, predict
from tasks.ledger.knobs import MEMORY_ALONE, Knob, Setting, joined
from tasks.ledger.machine import Machine
from tasks.ledger.predict.text import Text
from tasks.params import STAGES, Params

TOGETHER = (
    ("evaluate.max_bytes", "evaluate.batch_size", "deploy_profile.repeats"),
    ("pretrain.steps", "finetune.steps"),
    ("pretrain.batch_size, pretrain.steps", "finetune.batch_size, finetune.steps", "evaluate.batch_size"),
    ("pretrain.steps", "finetune.steps", "evaluate.max_bytes", "deploy_profile.repeats"),
    ("pretrain.steps", "design"),
    ("pretrain.batch_size", "finetune.batch_size", "evaluate.batch_size", "evaluate.max_bytes", "design"),
    ("pretrain.steps", "finetune.steps", "evaluate.max_bytes", "design"),
)
"""What is turned together, by the same factor, to begin with; where none of these fits, everything is."""

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.0)
"""Common factors that are tried for it."""

Fit = tuple[Setting, Mapping[str, Metrics]]
"""New values, and what the stages that would run are predicted to cost with them."""


@dataclass(frozen=True)
class Case:
    """A lifecycle that doesn't fit.

    Attributes:
        params: as they are.
        stages: that will run.
        spent: priced metrics of the stages that are finished.
        free_memory: bytes that a new process can take; None: not looked at.
        machine: measured rates.
        text: the text of `data.source`.
    """

    params: Params
    stages: Collection[str]
    spent: Mapping[str, Metrics]
    free_memory: float | None
    machine: Machine
    text: Text
    _known: dict[str, set[str]] = field(default_factory=dict)

    def plan(self, params: Params, owner: str = "") -> dict[str, Metrics]:
        """Priced predictions of the stages that would run, `owner` among them."""
        stages = [stage for stage in STAGES if stage in self.stages or stage == owner]
        return predict.plan(params, self.machine, self.text, stages=stages)

    def fits(self, setting: Setting, owner: str = "") -> Mapping[str, Metrics] | None:
        """The plan with these values, if every limit holds and nothing that could be predicted has become unknown."""
        params = setting.applied(self.params)
        if params is None:
            return None
        planned = self.plan(params, owner)
        over = budget.excesses(planned, params.budget, self.spent)
        return None if over or self._too_large(planned) or self._unknown(planned) else planned

    def _too_large(self, planned: Mapping[str, Metrics]) -> bool:
        peak = budget.total("memory_bytes", planned)
        return self.free_memory is not None and peak is not None and peak > self.free_memory

    def _unknown(self, planned: Mapping[str, Metrics]) -> bool:
        if not self._known:
            self._known.update({stage: _known(metrics) for stage, metrics in self.plan(self.params).items()})
        return any(not known <= _known(planned[stage]) for stage, known in self._known.items())

    def minds(self, knob: Knob) -> bool:
        """Whether it can help: what saves memory alone does only where memory lacks."""
        lacks = self.free_memory is not None or self.params.budget.memory_bytes is not None
        return lacks or knob.name not in MEMORY_ALONE

    def owns(self, knob: Knob) -> bool:
        """Whether turning it makes no finished work void; the design, a few sums, may be drawn up again."""
        return knob.owner in self.stages or (knob.owner == "design" and "pretrain" in self.stages)


def _known(metrics: Metrics) -> set[str]:
    return {name for name in budget.METRIC_OF.values() if name in metrics and metrics[name].value is not None}


def mildest(case: Case, settings: Sequence[Setting], owner: str) -> Fit | None:
    """The mildest of `settings` (mild to harsh) that fits, by bisection; None: not even the harshest does."""
    found = case.fits(settings[-1], owner)
    if found is None:
        return None
    mild, harsh = -1, len(settings) - 1
    while harsh - mild > 1:
        middle = (mild + harsh) // 2
        planned = case.fits(settings[middle], owner)
        if planned is None:
            mild = middle
        else:
            harsh, found = middle, planned
    return settings[harsh], found


def together(case: Case, knobs: Sequence[Knob]) -> Iterator[Fit]:
    """Groups of knobs that fit when they are turned together, no more knobs than it takes and none further than it must."""
    any_fits = False
    for names in TOGETHER:
        group = [knob for knob in knobs if knob.name in names or (knob.owner == "design" and "design" in names)]
        found = _group(case, group) if len(group) > 1 else None
        if found is not None:
            any_fits = True
            yield found
    everything = {knob.name: knob for knob in reversed(knobs) if knob.single}
    found = None if any_fits else _group(case, list(everything.values()))
    if found is not None:
        yield found


def _group(case: Case, group: Sequence[Knob]) -> Fit | None:
    owner = "design" if any(knob.owner == "design" for knob in group) else ""
    turned = [joined(knob.at(share) for knob in group) for share in SHARES]
    found = mildest(case, turned, owner)
    if found is None:
        return None
    share = SHARES[turned.index(found[0])]
    chosen = {knob: knob.at(share) for knob in group}
    costly_first = sorted(chosen, key=lambda knob: chosen[knob].free)
    for knob in costly_first:  # leave out what isn't needed
        rest = [setting for other, setting in chosen.items() if other is not knob]
        if rest and (fewer := case.fits(joined(rest), owner)) is not None:
            del chosen[knob]
            found = joined(rest), fewer
    for knob in (knob for knob in costly_first if knob in chosen):  # and turn the others back as far as it goes
        rest = [setting for other, setting in chosen.items() if other is not knob]
        relaxed = [joined([*rest, setting]) for setting in knob.settings if setting.share >= chosen[knob].share]
        better = mildest(case, relaxed, owner)
        if better is not None:
            chosen[knob], found = knob.settings[relaxed.index(better[0])], better
    return found
