"""The flow: one model through its whole life, a stage at a time. Imports Prefect: set the environment first."""

from __future__ import annotations

import time

import click
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import ending, forecast, repro, status, track
from tasks.ledger import report
from tasks.params import STAGES, load


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def reproduce(stage: str, clean: bool = False) -> State[None]:
    """Bring one stage up to date; DVC decides whether that means running it. `clean`: it has said already that it is.

    Prefect's own cache is off: it versions return values, not files. Set r to 8, 16, 8 again and it would say "Cached"
    over the bytes of r=16, where DVC puts those of r=8 back. `Cached` here means: nothing was computed in this flow
    run, which the report tells, since the runner stamps it with this run's id.
    """
    began, invocation = time.monotonic(), str(flow_run.id)
    if not clean:
        with track.follow(stage):
            repro.bring_up(stage, invocation)
    found = report.read(stage) or {}
    name = "Completed" if found.get("invocation") == invocation else "Cached"
    click.echo(ending.line(stage, name, time.monotonic() - began, found.get("metrics", {})))
    return Completed(name=name)


@flow(name="lifecycle", persist_result=False)
def lifecycle() -> None:
    """Carry one model from raw text to deployable files, within the budget; then publish what is new.

    A stage that fails raises, and the chain stops there: what comes after would read what isn't there.
    """
    with repro.alone():
        ending.bury_the_dead(str(flow_run.id))
        load()  # of a run by the clock, nobody has read the file yet; DVC would misunderstand what is wrong in it
        stale = status.stale()
        status.refuse_missing(stale)
        forecast.refuse(stale)
        for stage in STAGES:
            reproduce(stage, clean=stage not in stale)
        ending.publish(changed=bool(stale))
