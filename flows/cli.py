"""The command line: parses, calls, prints; nothing else. Libraries are imported in the command that needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows import planning, terminated
from flows.compare import command as comparison
from tasks.core.errors import UserError


class Door(click.Group):
    """Shows a user's mistake as a sentence, without a traceback, and ends with its exit code; 130 after Ctrl-C or SIGTERM."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        terminated.heed()
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.code)
        except BrokenPipeError:
            raise  # click's own affair
        except OSError as error:
            click.echo(f"error: {error.filename or 'the system'}: {error.strerror or error}", err=True)
            ctx.exit(UserError.code)
        except KeyboardInterrupt:
            click.echo("stopped; what was done so far is kept", err=True)
            ctx.exit(130)


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="leanlm")
def main() -> None:
    """Carry one language model through its whole life under a resource budget.

    Data, design, pretraining, finetuning, compression, deployment profile: every choice is a line of params.yaml,
    and one ledger says what each stage cost and gained.
    """


def _enter_project() -> None:
    from flows.environment import enter_project

    enter_project()


@main.command()
@click.option("--preset", metavar="NAME", help="Replace params.yaml by presets/NAME.yaml over the defaults.")
@click.option("-S", "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Edit params.yaml; repeatable.")
def run(preset: str | None, assignments: tuple[str, ...]) -> None:
    """Bring every stage up to date; only what must run runs."""
    _enter_project()
    from flows import edit, repro, servers
    from flows.environment import use_prefect
    from tasks.params import load

    if preset or assignments:
        with repro.alone():  # the stages of a run that is going on read params.yaml too
            said = edit.apply(preset, assignments)
        click.echo("\n".join(said))
    load()  # a mistake in the file is said before anything is started
    server = servers.start("prefect")
    use_prefect(server.url)
    from httpx import TransportError
    from prefect.events.worker import EventsWorker

    from flows.lifecycle import lifecycle

    try:
        lifecycle()
    except TransportError:
        hint = f"run again: finished stages and checkpoints are kept (its log: {server.log})"
        raise UserError(f"{server.url}: Prefect's server went away", hint) from None
    finally:
        EventsWorker.drain_all(timeout=5)  # left to the end of the interpreter, it fails there, and says so


@main.command()
@planning.options
def plan(**given: Any) -> None:
    """Predict what every stage will cost; with limits, find the best model within them."""
    _enter_project()
    (planning.run if planning.wanted(given) else planning.forecast)(given)


@main.command()
@click.option("--force", is_flag=True, help="Measure again, even if this machine is known.")
@click.option(
    "--list", "list_", is_flag=True, help="The public accelerators instead: what they can do, cost, and sources."
)
def hardware(force: bool, list_: bool) -> None:
    """Measure this machine once, and show how fast it multiplies, reads memory and writes to disk."""
    _enter_project()
    from flows import hardware as page

    if list_ and force:
        raise UserError("--list measures nothing, so --force has no effect", "give one of the two")
    click.echo(page.listed() if list_ else page.measured(force))


@main.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Train at most that long.  [default: 10]",
)
@click.option("--flops", type=click.FloatRange(min=0, min_open=True), help="A budget in FLOPs instead.")
@click.option("--points", is_flag=True, help="Train nothing: show the ladder that is kept.")
def scale(minutes: float | None, flops: float | None, points: bool) -> None:
    """Train a ladder of small models, fit loss to size and text, and say what to expect of the planned one."""
    _enter_project()
    from flows import repro
    from flows import scale as page
    from tasks.scaling import law

    budgets = [name for name, value in (("--minutes", minutes), ("--flops", flops)) if value is not None]
    if points and budgets:
        raise UserError(f"--points trains nothing, so {' and '.join(budgets)} has no effect", "give one of the two")
    if len(budgets) > 1:
        raise UserError("--minutes and --flops: found both; a ladder has one budget", "give one of the two")
    if points:
        record = law.read()
        if record is None:
            raise UserError(f"{law.PATH}: no ladder has been trained yet", "`leanlm scale` trains one")
    else:
        with repro.alone():
            record = page.scale(10.0 if minutes is None else minutes, flops)
    click.echo("\n".join([page.table(record), "", *page.said(record)]))


@main.command()
@comparison.options
def compare(**given: Any) -> None:
    """Run STAGE with many methods on the same base, data and budget: which one is worth it?"""
    _enter_project()
    comparison.run(**given)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Tell what would run, and why."""
    _enter_project()
    from flows.status import stale, to_json
    from flows.unfinished import told
    from tasks.params import load

    load()
    found = stale()
    if as_json:
        click.echo(to_json(found))
        return
    for stage, reasons in found.items():
        click.echo(stage)
        for reason in reasons:
            click.echo(f"  {reason}")
    if not found:
        click.echo("everything is up to date")
    for line in told():
        click.echo(line)


@main.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it.")
def report(output: Path | None) -> None:
    """Write the ledger as one self-contained HTML file."""
    _enter_project()
    from flows.report import write

    click.echo(write(output))


@main.command()
def track() -> None:
    """Publish the ledger to MLflow again: whatever isn't there yet."""
    _enter_project()
    from flows.track import publish

    count = publish(strict=True)
    click.echo(f"stages published to MLflow: {count}" if count else "MLflow has everything already")


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="MLflow's port.  [default: 5000, or a free one]")
def ui(port: int | None) -> None:
    """Start the web pages of MLflow and Prefect, on this machine only, and print where they are."""
    _enter_project()
    from flows import servers, track

    track.prepare()
    for name, at in (("mlflow", port), ("prefect", None)):
        click.echo(f"{name:<8} {servers.start(name, at).url}")
    click.echo("`leanlm down` stops them")


@main.command()
def down() -> None:
    """Stop every server this project has started."""
    _enter_project()
    from flows import servers

    stopped = servers.stop_all()
    for name, server in stopped.items():
        click.echo(f"stopped {name} ({server.url}, process {server.pid})")
    if not stopped:
        click.echo("no server is running")


@main.command("schedule")
@click.option("--cron", required=True, metavar="EXPRESSION", help='When, e.g. "0 3 * * *" for every night at three.')
@click.option("--timezone", default="UTC", show_default=True, metavar="NAME", help="EXPRESSION's time zone.")
def schedule_(cron: str, timezone: str) -> None:
    """Serve the lifecycle as a Prefect deployment that runs by the clock, until Ctrl-C."""
    _enter_project()
    from flows import schedule, servers
    from flows.environment import use_prefect

    schedule.check(cron, timezone)
    server = servers.start("prefect")
    url = use_prefect(server.url)
    click.echo(f"waiting for {cron!r} ({timezone}); runs are listed at {server.url}; Ctrl-C ends it")
    schedule.serve(cron, timezone, url)


@main.command()
@click.argument("stage", required=False)
@click.option("--markdown", is_flag=True, help="The table of the README.")
def techniques(stage: str | None, markdown: bool) -> None:
    """List every technique with its paper, and every parameter with its default and what is allowed."""
    from flows import catalogue

    click.echo(catalogue.markdown(stage) if markdown else catalogue.text(stage))
