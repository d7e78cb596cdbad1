"""Ways out of a refusal: the changes to params.yaml that fit the budget at the least predicted loss of quality."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

from tasks.core.errors import UserError
from tasks.core.measure import Metrics
from tasks.ledger import budget
from tasks.ledger import machine as machines
from tasks.ledger.fit import Case, Fit, mildest, together
from tasks.ledger.harm import Quality, harm, quality
from tasks.ledger.knobs import Setting, joined, knobs
from tasks.ledger.machine import Machine
from tasks.ledger.predict.subject import subject
from tasks.ledger.predict.text import source_text
from tasks.params import Params
from tasks.scaling import law as scaling
from tasks.scaling.plan import DATA

OFFERED = 3
"""Changes a refusal names at most."""

MOST_AT_ONCE = 5
"""Parameters one change may name, unless none with fewer fits."""


@dataclass(frozen=True)
class Change:
    """One way out.

    Attributes:
        setting: the new values.
        planned: what the stages that would run are predicted to cost then, priced.
        harm: predicted loss of quality (`harm.harm`).
        before, after: what the quality hangs on.
        bits: bits per byte lost by the scaling law; None: no law, or something it doesn't know is lost too.
    """

    setting: Setting
    planned: Mapping[str, Metrics]
    harm: float
    before: Quality
    after: Quality
    bits: float | None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The smaller, the better: what leaves the model alone first, then the least harm, then the smallest step."""
        return (not self.setting.free, self.harm, -self.setting.share)

    @property
    def words(self) -> str:
        """What it does to the model."""
        if self.setting.free:
            return "same model"
        if self.bits is not None:
            return f"{self.bits:+.3f} bits per byte by the scaling law"
        said = [f"{1 - share:.0%} less {words}" for words, share in self.before.shares(self.after).items()]
        if self.before.full and not self.after.full:
            said.append("an adapter instead of every weight")
        if "pretrain.optimizer.method" in self.setting.assignments:
            said.append("another optimizer")
        return ", ".join(said).replace("less parameters", "fewer parameters") or "as many tokens, in smaller batches"


def search(case: Case) -> tuple[list[Change], bool]:
    """The cheapest changes that fit: of one parameter, and where too few do, of several turned together.

    Returns:
        At most `OFFERED` changes, best first, and whether turning a single knob is enough.
    """
    about = subject(case.params, case.machine, case.text)
    law, before = _law(case.params), quality(about)
    turnable = [knob for knob in knobs(case.params, about) if case.owns(knob) and case.minds(knob)]
    fits = [fit for knob in turnable if (fit := mildest(case, knob.settings, knob.owner)) is not None]
    alone = bool(fits)
    if len(fits) < OFFERED:
        several = list(together(case, turnable))
        few = [fit for fit in several if len(fit[0].assignments) <= MOST_AT_ONCE]
        fits += few if alone or few else several
    found = {fit[0].command: _change(case, fit, before, law) for fit in fits}
    return sorted(found.values(), key=lambda change: change.rank)[:OFFERED], alone


def _law(params: Params) -> scaling.Law | None:
    """The project's law, if it is about this family and this text and can be read."""
    try:
        law = scaling.load()
    except UserError:
        return None
    return law if law is not None and law.speaks_of(DATA, params.design.method) else None


def _change(case: Case, fit: Fit, before: Quality, law: scaling.Law | None) -> Change:
    setting, planned = fit
    changed = setting.applied(case.params) or case.params
    after = quality(subject(changed, case.machine, case.text))
    lost = harm(before, after, law)
    shares = before.shares(after)
    told = bool(shares) and shares.keys() <= {"parameters", "training text"} and before.full == after.full
    return Change(setting, planned, lost, before, after, lost if law is not None and told else None)


def offer(
    params: Params,
    stages: Collection[str],
    spent: Mapping[str, Metrics],
    free_memory: float | None = None,
    machine: Machine | None = None,
    later: Collection[str] = (),
) -> str:
    """What a refusal says of ways out: the cheapest changes that fit, as commands; or what the smallest would cost.

    Args:
        params: as they are.
        stages: that will run.
        spent: priced metrics of the finished ones.
        free_memory: bytes that a new process can take, where that is what lacks.
        machine: measured rates; None: this machine's.
        later: stages that run after those, which should fit as well, if they can.
    """
    text = source_text(Path(params.data.source))
    whole = Case(params, [*stages, *later], spent, free_memory, machine or machines.measure(), text)
    case, (found, alone) = whole, search(whole)
    if not found and later:
        case = replace(whole, stages=stages, _known={})
        found, alone = search(case)
    if not found:
        return _nothing(case)
    prefix = "" if alone else "no single parameter is enough; "
    count = f"the {len(found)} cheapest changes that fit" if len(found) > 1 else "the one change found that fits"
    what = "" if case is whole else f" {', '.join(stages)}, though not what comes after"
    width = min(64, max(len(change.setting.command) for change in found))
    lines = [f"    {one.setting.command:<{width}}  {_cost(case, one.planned)}; {one.words}" for one in found]
    return f"{prefix}{count}{what}:\n" + "\n".join(lines)


def _cost(case: Case, planned: Mapping[str, Metrics]) -> str:
    """The totals of what is limited, or the peak where memory lacks."""
    resources = list(budget.limits(case.params.budget))
    if case.free_memory is not None:
        resources = list(dict.fromkeys(["memory_bytes", *resources]))
    totals = {resource: budget.total(resource, planned, case.spent) for resource in resources}
    return ", ".join(budget.amount(resource, value) for resource, value in totals.items() if value is not None)


def _nothing(case: Case) -> str:
    """What everything at its least would cost."""
    about = subject(case.params, case.machine, case.text)
    least: dict[str, list[Setting]] = {}
    for knob in knobs(case.params, about):
        if case.owns(knob) and case.minds(knob) and knob.single:
            least.setdefault(knob.name, []).append(knob.settings[-1])
    if not least:
        return "nothing of what will run can be turned down"
    tried = [joined(settings).applied(case.params) for settings in product(*least.values())]
    planned = min((case.plan(params) for params in tried if params is not None), key=partial(_excess, case))
    return (
        f"no change of parameters is enough: with all {len(least)} that make it cheaper at their least it would "
        f"still take {_cost(case, planned)}"
    )


def _excess(case: Case, planned: Mapping[str, Metrics]) -> float:
    """By how much limits are exceeded, as a sum of shares."""
    limits = budget.limits(case.params.budget)
    if case.free_memory is not None:
        limits["memory_bytes"] = min(case.free_memory, limits.get("memory_bytes", case.free_memory))
    return sum((budget.total(name, planned, case.spent) or 0.0) / max(limit, 1.0) for name, limit in limits.items())
