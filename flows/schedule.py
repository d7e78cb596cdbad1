"""The flow as a Prefect deployment that runs by the clock."""

from __future__ import annotations

from tasks.core.errors import UserError


def check(cron: str, timezone: str) -> None:
    """Refuse a schedule that isn't one.

    Raises:
        UserError: `cron` or `timezone` isn't valid.
    """
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    hints = {
        "cron": "five fields: minute hour day month weekday, e.g. 0 3 * * * for every night at three",
        "timezone": "a name of the time zone database, e.g. Europe/Berlin",
    }
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][-1])
        raise UserError(f"--{field} {error.errors()[0]['input']!r}: not valid", hints.get(field, "")) from None


def serve(cron: str, timezone: str, api_url: str) -> None:
    """Serve the flow from the server at `api_url` until interrupted; a run starts at each time that `cron` names."""
    from prefect.schedules import Cron
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.types.entrypoint import EntrypointType

    from flows.lifecycle import lifecycle

    with temporary_settings({PREFECT_API_URL: api_url}):  # `check` has imported Prefect, which reads its settings then
        lifecycle.serve(
            name="scheduled",
            schedule=Cron(cron, timezone=timezone),
            limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,  # the child that runs the flow imports it as this process did
            print_starting_message=False,
        )
