"""What other people's tools must be told before they are imported: no telemetry, and a home in this project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tasks.core.errors import UserError

WORK = Path("work")
"""Unfinished work, logs and servers of this project; git-ignored."""


def enter_project() -> None:
    """Check that this folder is a project, then set the environment that every tool and child process inherits.

    Raises:
        UserError: this folder has no dvc.yaml.
    """
    if not Path("dvc.yaml").is_file():
        raise UserError(f"{Path.cwd()}: not a project folder (no dvc.yaml)", "change to the project's folder first")
    direct = _first("127.0.0.1", os.environ.get("no_proxy") or os.environ.get("NO_PROXY", ""), ",")
    home = (WORK / "prefect").resolve()
    os.environ.update(
        DO_NOT_TRACK="true",
        DVC_NO_ANALYTICS="true",
        HF_HUB_DISABLE_TELEMETRY="1",
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_LOGGING_LEVEL="WARNING",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_HOME=str(home),
        PREFECT_PROFILES_PATH=str(home / "profiles.toml"),
        PREFECT_SERVER_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="false",
        PATH=_first(str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), os.pathsep),
        NO_PROXY=direct,
        no_proxy=direct,
    )


def use_prefect(url: str) -> str:
    """Name the Prefect server to use, and return its API's address. Its console log is kept off the terminal."""
    api = f"{url}/api"
    os.environ.update(
        PREFECT_API_URL=api,
        PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="CRITICAL",
        PREFECT_LOGGING_INTERNAL_LEVEL="CRITICAL",  # its services complain of an interrupted run on another way
    )
    return api


def _first(item: str, items: str, separator: str) -> str:
    """`items` with `item` in front, once."""
    return separator.join([item, *(other for other in items.split(separator) if other and other != item)])
