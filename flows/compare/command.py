"""`leanlm compare`: options in, table out. Imports nothing heavy: the command line reads it for `--help`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tasks.core.errors import UserError

if TYPE_CHECKING:
    from flows.compare.table import Table

Command = Callable[..., None]


def options(command: Command) -> Command:
    """Declare the stage and every option."""
    page = click.Path(path_type=Path, dir_okay=False)
    declared = [
        click.argument("stage", metavar="STAGE"),
        click.option(
            "--methods", multiple=True, metavar="LIST",
            help="Contenders, divided by commas: METHOD[+OPTIMIZER][:NAME=VALUE]..., e.g. lora,lora:r=16,full+galore. "
            "[default: every method of the stage]",
        ),
        click.option(
            "--equal", "how", type=click.Choice(["steps", "flops", "memory"]), default="steps", show_default=True,
            help="What all may take: the same steps, or the predicted FLOPs or peak memory of the first.",
        ),
        click.option("-S", "--set", "common", multiple=True, metavar="NAME=VALUE", help="For all contenders; repeatable."),
        click.option("--quality", metavar="METRIC", help="What is compared.  [default: validation_loss]"),
        click.option("-o", "--out", type=page, help="The page; .md, .csv, .json go beside it.  [default: reports/compare-STAGE.html]"),
    ]  # fmt: skip
    for option in reversed(declared):
        command = option(command)
    return command


def run(
    stage: str, methods: Sequence[str], how: str, common: Sequence[str], quality: str | None, out: Path | None
) -> None:
    """Run what isn't known yet, print the table, write the pages, publish.

    Raises:
        UserError: bad input, another run is going on, a stage before failed, or no contender ended well.
    """
    from flows.compare import table as tables
    from flows.compare import text
    from flows.compare.points import contenders
    from flows.compare.running import compare

    points = contenders(stage, methods, common)
    tables.check(quality)
    outcomes = compare(stage, points, how)
    made = tables.made(stage, how, outcomes, quality)
    click.echo("\n".join(filter(None, [text.title(made), "", text.terminal(made), "", text.sentence(made)])))
    computed = sum(one.computed for one in outcomes)
    click.echo(f"{computed} computed, {len(made.rows) - computed} known already, {len(made.others)} without figures")
    page = _write(made, out or Path("reports", f"compare-{stage}.html"))
    _publish(made)
    click.echo(f"page: {page}    table: {page.with_suffix('.md')}, .csv, .json    each: reports/compare/{stage}/")
    if not made.rows:
        raise UserError(f"compare {stage}: no contender ended well", "the reasons are above")


def _write(table: Table, path: Path) -> Path:
    from flows.compare import page, text
    from flows.compare import table as tables
    from flows.report.page import save

    save(text.markdown(table), path.with_suffix(".md"))
    save(tables.as_csv(table), path.with_suffix(".csv"))
    save(tables.as_json(table), path.with_suffix(".json"))
    return save(page.render(table), path)


def _publish(table: Table) -> None:
    from functools import partial

    from flows import track
    from flows.compare import published

    track.hand_over(list(published.identities(table).values()), partial(published.publish, table=table))
