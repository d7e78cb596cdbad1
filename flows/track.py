"""MLflow as a view of the ledger: a run per lifecycle, a child per stage, live curves, the deployable model.

`reports/*.json` and `dvc.lock` are the record; deleting mlruns/mlflow.db loses nothing. No environment is logged.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flows import history
from flows.history import Row
from flows.lineage import Stage, identity_of, lifecycle
from flows.runs import IDENTITY, VERSION, Runs
from tasks.core.errors import UserError

EXPERIMENT = "leanlm"
FOLDER = Path("mlruns")
PERIOD = 2.0
"""Seconds between two batches of a live curve."""
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # a pooled connection would go on writing to a deleted database
}


def tracking_uri() -> str:
    """The address of MLflow's database: `sqlite:///mlruns/mlflow.db`, made absolute."""
    return f"sqlite:///{_database()}"


def publish(strict: bool = False) -> int:
    """Publish what MLflow doesn't have yet of the present lifecycle; the number of new child runs.

    With nothing to do it returns 0 without importing mlflow. Trouble is one line on stderr and never an exception,
    unless `strict`.

    Raises:
        UserError: with `strict`, whatever went wrong.
    """
    try:
        stages, remarks = lifecycle()
        for remark in remarks:
            _say(remark)
        if not stages or _complete(stages):
            return 0
        with locked():
            return 0 if _complete(stages) else _runs().publish(stages)
    except Exception as error:  # a view must never take the ledger down with it
        if strict:
            raise UserError(f"MLflow: {_line(error)}", "the ledger is safe; `leanlm track` tries again") from error
        _say(f"not published: {_line(error)} (the ledger is safe; `leanlm track` tries again)")
        return 0


def hand_over(identities: list[str], write: Callable[[Runs], object]) -> None:
    """Let `write` put what goes by these identities into MLflow, unless it is all there: then mlflow isn't imported.

    Trouble is one line on stderr and never an exception.
    """
    try:
        if not identities or set(identities) <= _versions().keys():
            return
        with locked():
            write(_runs())
    except Exception as error:  # a view must never take the ledger down with it
        _say(f"not published: {_line(error)} (the ledger is safe)")


@contextmanager
def follow(stage: str) -> Iterator[None]:
    """Stream the history of `stage` to MLflow while the block runs; `publish` then completes the same run.

    An exception marks the run FAILED, an interrupt KILLED; the next attempt of the same key goes on in the same run.
    mlflow is imported when the first row appears, in a thread. Trouble is one line on stderr, never an exception.
    """
    follower = history.Follower(
        stage, PERIOD, partial(_LiveRun, stage), lambda error: _say(f"{stage}: no live curve: {_line(error)}")
    )
    follower.start()
    try:
        yield
    except Exception:
        follower.close("FAILED")
        raise
    except BaseException:
        follower.close("KILLED")
        raise
    follower.close()


class _LiveRun:
    """The run of a stage that isn't finished."""

    def __init__(self, stage: str, key: str, began: int) -> None:
        with locked():
            self._runs = _runs()
            self._info = self._runs.open(stage, key, began)
        self._step: float | None = None

    def rows(self, rows: list[Row]) -> None:
        self._step = self._runs.extend_curve(self._info, rows, self._step)

    def end(self, status: str) -> None:
        self._runs.client.set_terminated(self._info.run_id, status)


def _say(message: str) -> None:
    sys.stderr.write(f"track: {message}\n")


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or repr(error)


def _database() -> Path:
    return (FOLDER / "mlflow.db").absolute()


def _complete(stages: list[Stage]) -> bool:
    """Whether the database holds every stage, their lifecycle and the delivered model. Needs no mlflow."""
    versions = _versions()
    wanted = {identity_of(stages), *(stage.identity for stage in stages)}
    return wanted <= versions.keys() and all(versions[stage.identity] for stage in stages if stage.served())


def _versions() -> dict[str, str | None]:
    """Identity of every whole run -> version of the model it delivers; empty where there is no database."""
    query = (
        "SELECT tags.value, version.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid"
        " LEFT JOIN tags version ON version.run_uuid = tags.run_uuid AND version.key = ?"
        " WHERE tags.key = ? AND runs.lifecycle_stage = 'active'"
    )
    try:
        with closing(sqlite3.connect(f"{_database().as_uri()}?mode=ro", uri=True)) as database:
            return dict(database.execute(query, (VERSION, IDENTITY)).fetchall())
    except sqlite3.Error:
        return {}


def locked() -> AbstractContextManager[Any]:
    """One process at a time: MLflow's migrations race, and nothing may be published twice."""
    from filelock import FileLock

    FOLDER.mkdir(exist_ok=True)
    return FileLock(FOLDER / ".lock", timeout=300)


def prepare() -> None:
    """See to it that the database is there before a server opens it: two makers at once would break it."""
    if not _database().exists():
        with locked():
            make_tables()


def make_tables() -> None:
    """Make MLflow's tables where they are missing (a client looks only once in its process's life). Hold the lock."""
    os.environ.update(_ENVIRONMENT)
    from mlflow.store.tracking import sqlalchemy_store

    store: Any = sqlalchemy_store.SqlAlchemyStore
    store(tracking_uri(), _artifacts())


def _artifacts() -> str:
    return (FOLDER / "artifacts").absolute().as_uri()


def _runs() -> Runs:
    """The experiment's runs. The caller holds the lock."""
    make_tables()
    from mlflow import MlflowClient, entities

    client = MlflowClient(tracking_uri(), tracking_uri())
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        # without it MLflow's page opens on traces of language-model calls, and not on runs
        tags = {"mlflow.experimentKind": "custom_model_development"}
        created = client.create_experiment(EXPERIMENT, artifact_location=_artifacts(), tags=tags)
        return Runs(client, entities, created, _say)
    if experiment.lifecycle_stage != "active":
        client.restore_experiment(experiment.experiment_id)
    return Runs(client, entities, experiment.experiment_id, _say)
