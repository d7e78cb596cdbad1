"""The report: one self-contained HTML file that tells what a lifecycle cost and gained. A view of files; it writes no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.report import delivery, headline, load, plots, predicted, provenance, scaling, tables
from flows.report.courses import courses
from flows.report.load import Lifecycle
from flows.report.page import environment, save
from tasks.ledger import report
from tasks.params import STAGES

PATH = report.FOLDER / "report.html"
"""Where the page goes unless told otherwise."""

TRAINED = ("pretrain", "finetune")
ANSWERS = {"pretrain": "Base model", "finetune": "Finetuned model"}
"""Stage -> whose answer it is, beside questions."""

_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160)), "�")


def write(path: Path | None = None) -> Path:
    """Write the report of the current folder, atomically, and say where (default: reports/report.html).

    The same files give the same bytes: the page carries no time of its own.

    Raises:
        UserError: no stage has a report yet, one is damaged, or `path` can't be written.
    """
    return save(render(load.read()), path or PATH)


def render(life: Lifecycle) -> str:
    """The page."""
    made = environment()
    made.filters["printable"] = lambda text: text.translate(_CONTROL)
    page: str = made.get_template("template.html").render(**_context(life))
    return page


def _context(life: Lifecycle) -> dict[str, Any]:
    compared, scaled = predicted.comparisons(life), scaling.section(life)
    prompts = list(dict.fromkeys(prompt for texts in life.samples.values() for prompt in texts))
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
        "prompts": prompts,
        "continued": [prompt for prompt in prompts if prompt not in life.references],
        "answers": ANSWERS,
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
        "courses": courses(stage, rows),
        "window": plots.window_of(rows),
        "rows": rows,
        "best": best,
    }
