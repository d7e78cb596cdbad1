"""What a flow run leaves behind: a line per stage, MLflow's view, the HTML report, and no dead runs in Prefect."""

from __future__ import annotations

from pathlib import Path

import click

from tasks.core.measure import Metrics
from tasks.ledger.report import FOLDER
from tasks.params import PATH

HEADLINES = (
    "decode_tokens_per_second/llama_cpp",
    "compression_ratio",
    "bits_per_byte",
    "validation_loss",
    "parameters",
    "train_tokens",
)
"""The metric shown beside a stage: the first of these that its report has."""


def line(stage: str, state: str, seconds: float, metrics: Metrics) -> str:
    """How one stage went, e.g. `pretrain         Completed     312.4 s  bits per byte 2.31`."""
    from flows.report.words import human, label
    from tasks.ledger.vocabulary import lookup

    shown = ""
    for name in HEADLINES:
        if name in metrics and metrics[name].value is not None:
            words, qualifier = label(name)
            value = human(metrics[name].value, lookup(name).unit)
            shown = f"{words}{f' ({qualifier})' if qualifier else ''} {value}"
            break
    return f"{stage:<16} {state:<9} {seconds:>8.1f} s  {shown}".rstrip()


def publish(changed: bool) -> None:
    """Publish to MLflow what it doesn't have yet, and write the HTML report if something is newer than it."""
    from flows import report as pages
    from flows import track

    new = track.publish()
    page = pages.PATH
    if changed or new or not _is_newest(page):
        page = pages.write()
    if score := _score():
        click.echo(f"predictions: {score}")
    click.echo(f"report: {page}    ledger: reports/    `leanlm ui` shows MLflow and Prefect")


def _score() -> str:
    """One sentence on how good the predictions were; "" where nothing can be compared, or a report is damaged."""
    from flows.report import load, predicted
    from tasks.core.errors import UserError

    try:
        return predicted.score(predicted.comparisons(load.read()))
    except UserError:
        return ""


def bury_the_dead(own: str) -> None:
    """Mark the runs that were killed as crashed. Call it while `repro.alone()`: no other run is alive then."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        running = client.read_flow_runs(
            flow_filter=FlowFilter.model_validate({"name": {"any_": ["lifecycle"]}}),
            flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}}),
            sort=FlowRunSort.START_TIME_DESC,
            limit=100,
        )
        for run in running:
            if str(run.id) != own:
                client.set_flow_run_state(run.id, Crashed(message="Its process was killed."), force=True)


def _is_newest(page: Path) -> bool:
    """Whether `page` is there and nothing it shows was written after it."""
    if not page.exists():
        return False
    return all(file.stat().st_mtime <= page.stat().st_mtime for file in [PATH, *FOLDER.glob("*.json")])
