"""`leanlm plan` with limits: parse what a person has, search, say what was found, and write it into params.yaml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tasks.core.errors import UserError

if TYPE_CHECKING:
    from tasks.ledger.machine import Machine
    from tasks.planner import Constraints, Plan

Command = Callable[..., None]


class Asked(NamedTuple):
    """An option that sets a limit.

    Attributes:
        option: its name.
        figure: what it limits.
        kind: of amount (`tasks.planner.constraints.UNITS`).
        unit: of a bare number.
        help: what it means.
    """

    option: str
    figure: str
    kind: str
    unit: str
    help: str


LIMITS = (
    Asked("--flops", "flops", "flops", "", "Computation of the whole lifecycle, e.g. 2e15 or 2PFLOP."),
    Asked("--hours", "seconds", "time", "h", "Time of the whole lifecycle."),
    Asked("--minutes", "seconds", "time", "min", "The same in minutes."),
    Asked("--joules", "joules", "energy", "", "Energy of the whole lifecycle, e.g. 50kJ or 0.1kWh."),
    Asked("--dollars", "dollars", "money", "", "Rent and electricity of the whole lifecycle."),
    Asked("--training-memory", "training_memory_bytes", "bytes", "", "Peak memory of any stage."),
    Asked("--memory", "memory_bytes", "bytes", "", "Memory of the finished model while it is served, e.g. 512MB."),
    Asked("--model-bytes", "model_bytes", "bytes", "", "Size of the file that is served."),
    Asked("--tokens-per-second", "seconds_per_token", "rate", "", "Generated tokens per second, at least."),
    Asked("--latency", "seconds_per_token", "time", "s", "Time of one generated token, e.g. 20ms."),
    Asked("--bits-per-byte", "bits_per_byte", "bits", "", "Quality to reach, at most; takes a law of your own."),
)


def options(command: Command) -> Command:
    """Declare every option of the planner."""
    others = [
        click.option("--context", metavar="TOKENS", help="Tokens the finished model must be able to read."),
        click.option(
            "--family", "families", multiple=True, metavar="NAME", help="Only this one of `design`; repeatable."
        ),
        click.option("--on", metavar="NAME", help="What it would be on a public accelerator.  [default: this machine]"),
        click.option("--workers", type=int, metavar="N", help="Predict what N workers would send one another."),
        click.option("--apply", "applied", is_flag=True, help="Write the choice into params.yaml."),
        click.option(
            "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write the page."
        ),
    ]
    for option in reversed([*(click.option(a.option, metavar="AMOUNT", help=a.help) for a in LIMITS), *others]):
        command = option(command)
    return command


def constraints(given: dict[str, Any]) -> Constraints:
    """The options as constraints.

    Raises:
        UserError: an amount that is none.
    """
    from tasks.planner.constraints import Constraints, Limit, amount

    limits = []
    for asked in LIMITS:
        text = given.get(asked.option[2:].replace("-", "_"))
        if text is not None:
            value = amount(text, asked.option, asked.kind, asked.unit)
            most = 1 / value if asked.kind == "rate" else value
            limits.append(Limit(asked.option, asked.figure, most, text))  # type: ignore[arg-type]
    context = given.get("context")
    tokens = None if context is None else int(amount(context, "--context", "tokens"))
    if tokens is not None and tokens < 1:
        raise UserError(f"--context: found {context}", "one token at least")
    return Constraints(tuple(limits), tokens, tuple(given.get("families") or ()))


def wanted(given: dict[str, Any]) -> bool:
    """Whether the options ask for a search, and not for the configured lifecycle's cost alone."""
    return any(value for name, value in given.items() if name not in ("on", "workers"))


def machine(name: str | None) -> Machine:
    """A public accelerator by its name, or this machine.

    Raises:
        UserError: there is no such accelerator.
    """
    if name is None:
        from tasks.ledger.machine import measure

        return measure()
    from tasks.ledger.accelerators import machine_of

    return machine_of(name)


def run(given: dict[str, Any]) -> None:
    """Plan, print, write the page, and apply the choice if that is asked for.

    Raises:
        UserError: something that isn't an amount, a family or an accelerator, or limits that nothing keeps.
    """
    from flows import plan_page
    from flows.plan_text import network, text
    from tasks.params import load
    from tasks.planner import search
    from tasks.planner.network import traffic

    asked, where = constraints(given), machine(given["on"])
    plan = search(load(), where, asked)
    workers = given["workers"]
    sent = [] if workers is None else traffic(plan.stages, plan.params, workers, where.link_bytes_per_second)
    click.echo(text(plan))
    if sent:
        click.echo("\n" + network(sent, workers))
    click.echo(f"\n{plan_page.write(plan, sent, given['output'])}")
    if given["applied"]:
        for line in apply(plan):
            click.echo(line)
    else:
        click.echo("`--apply` writes the choice into params.yaml")


def forecast(given: dict[str, Any]) -> None:
    """What the lifecycle will cost as it is configured, and whether the budget allows it.

    Raises:
        OverBudget: it doesn't.
    """
    from flows import forecast as forecasts
    from flows.plan_text import network
    from tasks.ledger import predict
    from tasks.ledger.budget import limits
    from tasks.params import load
    from tasks.planner.network import traffic

    params, where = load(), machine(given["on"])
    planned = predict.plan(params, where)
    click.echo(forecasts.table(planned))
    for sentence in forecasts.warnings(params, where):
        click.echo(f"warning: {sentence}")
    if given["workers"] is not None:
        sent = traffic(planned, params, given["workers"], where.link_bytes_per_second)
        click.echo("\n" + network(sent, given["workers"]))
    if where.assumed:
        click.echo(f"assumed: {where.assumed}")
    forecasts.check(params, planned, machine=where)
    click.echo("within the budget" if limits(params.budget) else "no budget is set (`budget:` in params.yaml)")


def apply(plan: Plan) -> list[str]:
    """Write the choice into params.yaml; what was done, in sentences."""
    import json

    from flows import edit, repro
    from tasks.params import flatten, load

    with repro.alone():
        there = dict(flatten(load().model_dump(mode="json")))
        values = {name: value for name, value in plan.values.items() if there.get(name) != value}
        said = edit.apply(None, [f"{name}={json.dumps(value)}" for name, value in values.items()])
    return said or ["params.yaml says so already"]
