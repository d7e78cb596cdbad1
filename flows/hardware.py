"""The measured machine and the table of public accelerators, as a person reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from flows.forecast import columns
from flows.report.words import human

NAMES = {
    "float32": "fp32",
    "tf32": "tf32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "float8": "fp8",
    "int8": "int8",
}
"""torch's name of a dtype -> what data sheets call it."""

BUSY = 0.1
"""Others' processor time beside that of measuring, above which the rates are taken to have suffered."""


def measured(force: bool) -> str:
    """This machine, measured now unless it is known: rates by size and dtype, memory, disk, and what it is.

    Args:
        force: measure even if it was measured before.
    """
    from tasks.ledger import machine

    progress = Progress()
    try:
        found = machine.measurement(force, progress=progress)
    finally:
        progress.end()
    return text(found, machine.kept_at())


class Progress:
    """What is being measured, on stderr: one line that is written over in a terminal, one line in all elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.began = False

    def __call__(self, what: str) -> None:
        """Say it."""
        if self.terminal:
            click.echo(f"\r\033[Kmeasuring {what}", err=True, nl=False)
        elif not self.began:
            click.echo("measuring this machine: 15 to 20 s where nothing else runs", err=True)
        self.began = True

    def end(self) -> None:
        """Clear the line."""
        if self.terminal and self.began:
            click.echo("\r\033[K", err=True, nl=False)


def text(found: dict[str, Any], path: Path) -> str:
    """A measurement (`tasks.ledger.machine.measurement`) and where it is kept."""
    parts = [_what(found, path), _products(found["gemm"]), _memory(found["bandwidth"]), _rest(found)]
    return "\n\n".join(parts)


def _what(found: dict[str, Any], path: Path) -> str:
    about = found["machine"]
    lines = [
        f"{about['name']}  ({path}, measured on {found['date']})",
        f"  processor     {about['cpu']}, {about['cores']} cores, {human(about['memory_bytes'], 'B')} of memory",
    ]
    for gpu in found["gpus"]:
        limit = f", limited to {gpu['watts_limit']:g} W" if gpu["watts_limit"] else ", power limit unknown"
        lines.append(f"  graphics      {gpu['name']}, {human(gpu['memory_bytes'], 'B')}{limit}")
    if not found["gpus"]:
        lines.append("  graphics      none that torch can use")
    power = found["power_source"]
    charge = f", {power['battery_percent']:.0f} % charged" if power.get("battery_percent") is not None else ""
    lines.append(f"  power source  {power['source'] or 'unknown: ' + power['reason']}{charge}")
    return "\n".join(lines)


def _products(rows: list[dict[str, Any]]) -> str:
    """A row per shape, a column per dtype, the best of each below; then why cells are empty."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    cells: dict[tuple[int, int, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["m"], row["k"], row["n"]), {})[row["dtype"]] = row
    table = [["m x k x n", *(NAMES.get(dtype, dtype) for dtype in dtypes)]]
    for shape in sorted(cells, key=lambda each: (len(set(each)) > 1, each)):
        table += [[" x ".join(map(str, shape)), *(_rate(cells[shape].get(dtype)) for dtype in dtypes)]]
    best = [max((r["flops_per_second"] or 0.0 for r in rows if r["dtype"] == dtype), default=0.0) for dtype in dtypes]
    table.append(["best", *(human(rate, "FLOP/s") if rate else "-" for rate in best)])
    lacking = dict.fromkeys(f"-: {row['dtype']} {row['reason']}" for row in rows if row.get("reason"))
    return "\n".join(["matrix products", columns(table), *lacking])


def _rate(row: dict[str, Any] | None) -> str:
    return "-" if row is None or row["flops_per_second"] is None else human(row["flops_per_second"], "FLOP/s")


def _memory(bandwidth: dict[str, dict[str, float]]) -> str:
    operations = list(next(iter(bandwidth.values())))
    table = [["memory", *operations]]
    table += [[device, *(human(rates[each], "B/s") for each in operations)] for device, rates in bandwidth.items()]
    return columns(table)


def _rest(found: dict[str, Any]) -> str:
    disk = found["disk"]
    read = disk["read_bytes_per_second"]
    lines = [
        f"disk  {human(disk['write_bytes_per_second'], 'B/s')} written and synced, "
        + (f"{human(read, 'B/s')} read" if read is not None else f"reading unknown: {disk['reason']}"),
        f"busy  {found['rates']['busy']}",
    ]
    load = found["load"]
    if load["others_seconds"] + load["stolen_seconds"] > BUSY * load["own_seconds"]:
        lines.append(
            "      the rates are too low for a quiet machine: `leanlm hardware --force` when nothing else runs"
        )
    return "\n".join(lines)


def listed() -> str:
    """The table of public accelerators, then the sources and dates of each."""
    from tasks.ledger.accelerators import accelerators

    known = accelerators()
    heading = ["FLOP/s, dense", *NAMES.values(), "memory", "bandwidth", "power", "an hour", "link, one way"]
    table = [heading]
    for short, entry in known.items():
        peaks = {str(dtype): rate for dtype, rate in entry.flops_per_second.items()}
        price = entry.price.dollars_per_hour
        row = [short, *(human(peaks[name], "") if name in peaks else "-" for name in NAMES)]
        row += [human(entry.memory_bytes, "B"), human(entry.bandwidth_bytes_per_second, "B/s"), f"{entry.watts:g} W"]
        row += [f"${price:.2f}" if price else "-", human(entry.link.bytes_per_second, "B/s")]
        table.append(row)
    return "\n\n".join([columns(table), *(_sources(short, entry) for short, entry in known.items())])


def _sources(short: str, entry: Any) -> str:
    price = entry.price
    priced = f"{price.terms}; {price.source}, {price.date}" if price.dollars_per_hour else f"none: {price.reason}"
    lines = [
        f"{short}: {entry.name}, linked by {entry.link.name}",
        f"  data sheet  {entry.source}",
        f"  checked     {entry.checked}, {entry.date}{'' if entry.verified else ', not every figure'}",
        *([f"  note        {entry.note}"] if entry.note else []),
        f"  price       {priced}",
        f"  reached     {entry.reach.gemm:.0%} of the FLOP/s, {entry.reach.bandwidth:.0%} of the bandwidth: {entry.reach.source}",
    ]
    return "\n".join(lines)
