"""The report: one self-contained HTML file that tells what a lifecycle cost and gained. A view of files; it writes no other."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.report import delivery, headline, load, plots, predicted, provenance, scaling, tables, words
from flows.report.load import Lifecycle
from tasks.core.errors import UserError
from tasks.ledger import report
from tasks.params import STAGES

PATH = report.FOLDER / "report.html"
"""Where the page goes unless told otherwise."""

TRAINED = ("pretrain", "finetune")
_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "�")


def write(path: Path | None = None) -> Path:
    """Write the report of the current folder, atomically, and say where (default: reports/report.html).

    The same files give the same bytes: the page carries no time of its own.

    Raises:
        UserError: no stage has a report yet, one is damaged, or `path` can't be written.
    """
    target = path or PATH
    page = render(load.read())
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(page.encode("utf-8", "replace"))
        os.replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{target}: can't be written ({error.strerror})", "give another path, or make room there"
        ) from None
    return target


def render(life: Lifecycle) -> str:
    """The page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "title_of": words.title,
        "printable": lambda text: text.translate(_CONTROL),
        "parts": lambda text: re.findall(r"[A-Za-zµ/×]+|[^A-Za-zµ/×]+", text),
    }
    page: str = environment.get_template("template.html").render(**_context(life))
    return page


def _context(life: Lifecycle) -> dict[str, Any]:
    compared, scaled = predicted.comparisons(life), scaling.section(life)
    return {
        "life": life,
        "methods": tables.MEANING,
        "letters": tables.LETTERS,
        "sentence": headline.sentence(life),
        "finished": provenance.last_finished(life),
        "figures": headline.figures(life),
        "rows": headline.rows(life),
        "totals": [tables.total_cell(life, name) for name in headline.ROW],
        "floor_cells": headline.floor_cells(life),
        "verdict": headline.verdict(life),
        "quality_plot": plots.bits_per_byte(headline.points(life), headline.floors(life)),
        "ledger": tables.ledger(life),
        "comparisons": compared,
        "comparison_summary": predicted.summary(compared),
        "predicted": predicted,
        "ratios_plot": plots.ratios(compared),
        "resources": plots.RESOURCES,
        "scaling": scaled,
        "scaling_legend": scaling.legend(scaled) if scaled else [],
        "losses": [_loss(life, stage) for stage in TRAINED],
        "engines": delivery.engines(life),
        "engine_table": delivery.table(life),
        "has_p99": any("p99" in marks for marks in delivery.marks(life).values()),
        "latency_plot": plots.latency(delivery.marks(life)),
        "sizes_plot": plots.sizes(delivery.sizes(life)),
        "prompts": list(dict.fromkeys(prompt for texts in life.samples.values() for prompt in texts)),
        "provenance": provenance,
        "stage_order": list(STAGES),
    }


def _loss(life: Lifecycle, stage: str) -> dict[str, Any]:
    rows = life.histories.get(stage, [])
    validation = [row for row in rows if "validation_loss" in row]
    best = min(validation, key=lambda row: row["validation_loss"], default=None)
    return {
        "stage": stage,
        "plot": plots.loss(stage, rows),
        "window": plots.window_of(rows),
        "rows": rows,
        "best": best,
    }
