"""The comparison as one HTML file that needs nothing but itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.compare import plots, text
from flows.compare.record import Outcome
from flows.compare.table import Table, cell, heading, setting, settings
from flows.report.load import cleared
from flows.report.page import environment
from flows.report.provenance import said
from flows.report.words import exact
from tasks.ledger.vocabulary import lookup
from tasks.params import flatten


def render(table: Table) -> str:
    """The page."""
    made: str = environment(Path(__file__).parent).get_template("compare.html").render(**_context(table))
    return made


def _context(table: Table) -> dict[str, Any]:
    drawn = plots.marks(table)
    best = {name: table.best(name) for name in table.columns}
    first = table.rows[0].report if table.rows else {}
    return {
        "title": text.title(table),
        "sentence": text.sentence(table),
        "fronts": plots.fronts(table),
        "curves": plots.curves(table),
        "quality": heading(table.quality).lower(),
        "legend": [
            (name, mark.colour, plots.SHAPES[mark.marker], plots.DASHES[mark.dash][1]) for name, mark in drawn.items()
        ],
        "settings": [words for words, _ in settings(table)],
        "columns": [(heading(name), lookup(name).definition) for name in table.columns],
        "rows": [_row(table, row, best) for row in table.rows],
        "others": [(one.point.name, one.state, one.reason) for one in table.others],
        "common": _common(table),
        "machine": (first.get("machine") or {}).get("name", ""),
        "versions": first.get("versions") or {},
    }


def _row(table: Table, row: Outcome, best: dict[str, list[str]]) -> dict[str, Any]:
    name = row.point.name
    cells = []
    for metric in table.columns:
        value = row.entry(metric)
        known = value is not None and value.value is not None
        told = (
            [] if value is None else [exact(value.value, lookup(metric).unit), value.method, str(cleared(value.note))]
        )
        cells.append(
            (
                cell(row, metric),
                value.value if known and value else "",
                ", ".join(filter(None, told)),
                name in best[metric],
            )
        )
    values = [f"{key.partition('.')[2]} = {value}" for key, value in row.point.values.items()]
    return {
        "name": name,
        "tip": ", ".join(values),
        "settings": [setting(row, parameter) for _, parameter in settings(table)],
        "cells": cells,
        "front": table.on(name),
    }


def _common(table: Table) -> list[tuple[str, str]]:
    """What all points have in common of the stage's own parameters; a technique's block is left to the points."""
    every = [row.point.params.model_dump(mode="json") for row in (*table.rows, *table.others)]
    blocks = [
        dict(flatten({name: value for name, value in one[table.stage].items() if not isinstance(value, dict)}))
        for one in every
    ]
    same = (
        {name: value for name, value in blocks[0].items() if all(block[name] == value for block in blocks)}
        if blocks
        else {}
    )
    whole = {"seed": every[0]["seed"], "data.source": every[0]["data"]["source"]} if every else {}
    return [
        (name, said("", cleared(value)))
        for name, value in {**whole, **{f"{table.stage}.{n}": v for n, v in same.items()}}.items()
    ]
