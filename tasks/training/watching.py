"""What a person sees beside the progress bar."""

from __future__ import annotations

from tasks.core.job import Row

UNITS = {
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad norm",
    "tokens_per_second": "token/s",
    "mfu": "MFU",
    "memory_bytes": "MiB",
    "energy_joules": "J",
    "dollars": "$",
}
"""Column of the history -> its word on the bar, in this order."""


def shown(row: Row) -> Row:
    """The figures of a step that stand beside the bar."""
    named = {word: row[column] for column, word in UNITS.items() if row.get(column, "") != ""}
    if isinstance(named.get("MiB"), float | int):
        named["MiB"] = float(named["MiB"]) / (1 << 20)
    return named
