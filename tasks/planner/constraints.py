"""What a plan has to keep to: limits, each with the name the person gave it, and the amounts they are written in."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal, Self

from tasks.core.errors import UserError
from tasks.ledger import Budget

Figure = Literal[
    "flops", "seconds", "joules", "dollars", "training_memory_bytes",
    "memory_bytes", "model_bytes", "seconds_per_token", "bits_per_byte",
]  # fmt: skip
"""What a candidate is predicted to need or to reach; all of them are better when lower."""

UNITS: dict[str, dict[str, float]] = {
    "bytes": {
        "": 1, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
        "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
    },
    "time": {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400},
    "energy": {"": 1, "J": 1, "kJ": 1e3, "MJ": 1e6, "Wh": 3600, "kWh": 3.6e6},
    "flops": {"": 1, "FLOP": 1, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18},
    "money": {"": 1, "$": 1},
    "rate": {"": 1, "tokens/s": 1},
    "tokens": {"": 1, "k": 1000, "Ki": 1024},
    "bits": {"": 1},
}  # fmt: skip
"""Kind of amount -> unit -> how much it is in the ledger's unit (bytes, seconds, joules, FLOP, dollars)."""


def amount(text: str, option: str, kind: str, default: str = "") -> float:
    """`512MB`, `90 min`, `2e18`: a positive amount in the ledger's unit.

    Args:
        text: a number and, for some, a unit.
        option: its name, for the message.
        kind: of `UNITS`.
        default: unit of a bare number.

    Raises:
        UserError: it is no positive number with a unit of that kind.
    """
    units = UNITS[kind]
    match = re.fullmatch(r"\s*\$?([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z/$]*)\s*", text)
    allowed = ", ".join(unit for unit in units if unit) or "a number alone"
    hint = f"a positive number and one of: {allowed}" if any(units) else "a positive number"
    if match is None:
        raise UserError(f"{option}: found '{text}'", hint)
    unit = match[2] or default
    if unit not in units:
        raise UserError(f"{option}: found '{text}'; '{match[2]}' is no unit of it", hint)
    try:
        value = float(match[1]) * units[unit]
    except ValueError:
        raise UserError(f"{option}: found '{text}'", hint) from None
    if not 0 < value < math.inf:
        raise UserError(f"{option}: found '{text}'", hint)
    return value


@dataclass(frozen=True)
class Limit:
    """One figure may be `most` at most.

    Attributes:
        name: as the person gave it: `--hours`, `budget.seconds`.
        figure: what is limited.
        most: in the ledger's unit.
        said: the amount in the person's words; "" : it wasn't given by one.
    """

    name: str
    figure: Figure
    most: float
    said: str = ""

    def relaxed(self, factor: float) -> Limit:
        """The same, `factor` times as generous."""
        return replace(self, most=self.most * factor)

    @property
    def words(self) -> str:
        """`--hours 2`."""
        return f"{self.name} {self.said}".strip()


@dataclass(frozen=True)
class Constraints:
    """Everything a plan has to keep to.

    Attributes:
        limits: all of them hold together.
        context: tokens the model must be able to read at inference; None: as configured.
        families: of `design`; empty: every one.
    """

    limits: tuple[Limit, ...] = ()
    context: int | None = None
    families: tuple[str, ...] = ()

    def with_limit(self, limit: Limit) -> Self:
        """One more."""
        return replace(self, limits=(*self.limits, limit))

    def replaced(self, limit: Limit, by: Limit) -> Self:
        """The same with one limit exchanged."""
        return replace(self, limits=tuple(by if one is limit else one for one in self.limits))


def of_budget(budget: Budget) -> tuple[Limit, ...]:
    """The limits that `budget:` in params.yaml sets."""
    figures: dict[str, Figure] = {
        "seconds": "seconds",
        "joules": "joules",
        "dollars": "dollars",
        "flops": "flops",
        "memory_bytes": "training_memory_bytes",
    }
    values = {name: getattr(budget, name) for name in figures}
    return tuple(
        Limit(f"budget.{name}", figures[name], float(value), f"{value:g}")
        for name, value in values.items()
        if value is not None
    )
