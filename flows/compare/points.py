"""Who is compared: a point is a set of assignments to the parameters of one stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows import edit
from tasks.core.errors import UserError
from tasks.core.schema import Choice, validate
from tasks.params import STAGES, Params, load, override

JUDGED = ("pretrain", "finetune", "compress")
"""The stages that say how good the model is that they write."""
GRAMMAR = "METHOD[+OPTIMIZER][:NAME=VALUE]..., e.g. lora:r=16 or full+galore:learning_rate=1e-4"


@dataclass(frozen=True)
class Point:
    """One contender.

    Attributes:
        name: as the person wrote it.
        values: dotted parameter -> value, what makes it differ from the others.
        params: everything a person may turn, with `values` in their place.
        refused: why it can't be run, or "".
    """

    name: str
    values: dict[str, Any]
    params: Params
    refused: str = ""

    @property
    def slug(self) -> str:
        """Its name as a file's."""
        return re.sub(r"[^\w.+=-]", "_", self.name)[:80]

    def having(self, values: dict[str, Any]) -> Point:
        """The same with more assignments.

        Raises:
            UserError: a name that is no parameter, or a value that isn't allowed.
        """
        changed = validate(Params, override(self.params.model_dump(mode="json"), values))
        return replace(self, values=self.values | values, params=changed)


def contenders(stage: str, methods: Sequence[str] = (), common: Sequence[str] = ()) -> list[Point]:
    """The points to compare.

    Args:
        stage: one that judges what it writes.
        methods: contenders, several in one text divided by commas; none: every technique of the stage's registry.
        common: `NAME=VALUE` of the stage's parameters, for all of them.

    Raises:
        UserError: a stage, name or value that isn't one; two contenders that are the same.
    """
    if stage not in JUDGED:
        raise UserError(
            f"compare {stage}: not a stage that can be compared", f"there are: {', '.join(reversed(JUDGED))}"
        )
    base = Point("", {}, load()).having(_common(stage, common)).params
    named = [text.strip() for one in methods for text in _divided(one, ",")]
    texts = named or _registry(stage)
    points = [_point(stage, text, base, forgiving=not named) for text in texts]
    for one, other in ((a, b) for i, a in enumerate(points) for b in points[:i]):
        if one.slug == other.slug or (one.params == other.params and not one.refused):
            raise UserError(f"--methods: {one.name} and {other.name} are the same contender", "name it once")
    return points


def judged(points: Iterable[Point], stage: str) -> list[Point]:
    """The points, those whose technique can't work on the model refused in its own words."""
    from tasks.ledger.predict.subject import config_for

    found = []
    for point in points:
        refuse = getattr(getattr(getattr(point.params, stage), "technique", None), "refuse", None)
        why = point.refused or (refuse(config_for(point.params)) if refuse else "")
        found.append(replace(point, refused=why))
    return found


def _common(stage: str, texts: Sequence[str]) -> dict[str, Any]:
    values = dict(map(edit.assignment, texts))
    for name in values:
        if not name.startswith(f"{stage}."):
            raise UserError(
                f"-S {name}: only parameters of {stage} differ from params.yaml in a comparison of {stage}",
                f"`leanlm run -S {name}=...` changes what comes before it, for all",
            )
    return values


def _registry(stage: str) -> list[str]:
    block = STAGES[stage]
    if not issubclass(block, Choice):
        raise UserError(
            f"compare {stage}: {stage} has no methods of its own",
            "name contenders, e.g. --methods optimizer.method=muon",
        )
    return list(block.techniques())


def _point(stage: str, text: str, base: Params, forgiving: bool) -> Point:
    """A contender of the text.

    A method of the registry that the parameters don't allow is a refused point if `forgiving`: nobody asked for it.

    Raises:
        UserError: there is no such contender.
    """
    bare = Point(text, {}, base)
    try:
        return bare.having(_assignments(stage, text))
    except UserError as error:
        if forgiving:
            return replace(bare, values={f"{stage}.method": text}, refused=error.message)
        raise UserError(f"--methods {text}: {error.message}", error.hint or GRAMMAR) from None


def _assignments(stage: str, text: str) -> dict[str, Any]:
    """Dotted parameter -> value of a contender's text."""
    head, *settings = _divided(text, ":")
    if "=" in head:
        head, settings = "", [head, *settings]
    method, _, optimizer = head.partition("+")
    values: dict[str, Any] = {}
    if method:
        values[f"{stage}.method"] = method
    if optimizer or head.endswith("+"):
        values[f"{stage}.optimizer.method"] = optimizer
    for setting in settings:
        if "=" not in setting:
            raise UserError(f"{setting!r}: expected NAME=VALUE")
        name, value = edit.assignment(setting)
        values[_named(stage, name, method, optimizer)] = value
    return values


def _named(stage: str, name: str, method: str, optimizer: str) -> str:
    """The parameter a contender means: of its technique, else of its optimizer, else of the stage."""
    block = STAGES[stage]
    technique = block.techniques().get(method) if issubclass(block, Choice) else None
    if technique is not None and name.partition(".")[0] in technique.model_fields:
        return f"{stage}.{method}.{name}"
    chosen = block.model_fields.get("optimizer")
    kinds = chosen.annotation.techniques() if chosen is not None and chosen.annotation is not None else {}
    if optimizer in kinds and name in kinds[optimizer].model_fields:
        return f"{stage}.optimizer.{optimizer}.{name}"
    return f"{stage}.{name}"


def _divided(text: str, sign: str) -> list[str]:
    """`text` at each `sign` that stands in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
