"""A toy lifecycle under real DVC whose stages write ledgers, and what MLflow shows of it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flows import track
from flows.runs import IDENTITY
from tasks.core.schema import validate
from tasks.params import Params, override, render

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("step", "loss", "learning_rate", "grad_norm", "tokens_per_second", "seconds", "validation_loss")
TOY = """
import csv, datetime, json, pathlib, sys
stage, size = sys.argv[1], int(sys.argv[2])
out = pathlib.Path("artifacts", stage)
out.mkdir(parents=True)
(out / f"{stage}-Q8_0.gguf").write_bytes(bytes(size))
def figure(value, method, unit, **note): return {"value": value, "method": method, "unit": unit, **note}
metrics = {
    "wall_seconds": figure(2.5, "measured", "s"), "cpu_seconds": figure(4.0, "measured", "s"),
    "model_bytes/Q8_0": figure(size, "counted", "B"), "bits_per_byte": figure(2.25, "measured", "bit/B"),
    "peak_device_memory_bytes": figure(None, "measured", "B", note="no accelerator"),
}
if stage == "pretrain":
    metrics["tokens_per_second"] = figure(123.0, "measured", "token/s")
    history = pathlib.Path("reports/history/pretrain.csv")
    history.parent.mkdir(parents=True, exist_ok=True)
    with history.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(__COLUMNS__)
        for step in range(size):
            writer.writerow((step, 5.0 / (step + 1), 0.001, 1.0, 100.0, 0.1 * step, 4.5 if step % 2 else ""))
report = {
    "stage": stage, "key": f"k{size}", "invocation": "run-1",
    "machine": {"cpu": {"cores": 2}}, "versions": {"torch": "2.13.0"},
    "finished": datetime.datetime.now(datetime.timezone.utc).isoformat(), "metrics": metrics,
    "predicted": {"wall_seconds": figure(2.0, "modelled", "s", note="rate x size")},
}
pathlib.Path("reports").mkdir(exist_ok=True)
pathlib.Path("reports", f"{stage}.json").write_text(json.dumps(report))
""".replace("__COLUMNS__", repr(COLUMNS))
GRAPH = f"""
stages:
  data:
    cmd: {sys.executable} toy.py data 2
    deps: [toy.py]
    params: [data.tokenizer.train, data.source]
    outs: [artifacts/data]
    metrics: [reports/data.json: {{cache: false}}]
  pretrain:
    cmd: {sys.executable} toy.py pretrain ${{pretrain.steps}}
    deps: [toy.py, artifacts/data]
    params: [seed, pretrain]
    outs: [artifacts/pretrain]
    metrics: [reports/pretrain.json: {{cache: false}}]
    plots: [reports/history/pretrain.csv: {{cache: false}}]
  deploy_profile:
    cmd: {sys.executable} toy.py deploy_profile 7
    deps: [toy.py, artifacts/pretrain]
    params: [seed, deploy_profile]
    outs: [artifacts/deploy_profile]
    metrics: [reports/deploy_profile.json: {{cache: false}}]
"""
STAGES = ("data", "pretrain", "deploy_profile")


@cache
def finished(base: Path) -> Path:
    """A project whose lifecycle has run, with an MLflow database that has its tables and nothing else. To be copied."""
    folder = base / "toy_ledger"
    folder.mkdir()
    (folder / "toy.py").write_text(TOY)
    (folder / "dvc.yaml").write_text(GRAPH)
    few = validate(Params, override(Params().model_dump(mode="json"), {"pretrain.steps": 4}))
    (folder / "params.yaml").write_text(render(few))
    (folder / "mlruns").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        dvc("init", "--no-scm", "-q")
        dvc("repro", "-q")
        with track.locked():
            track.make_tables()
    return folder


def copy(factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A copy of the toy project below `folder`."""
    return Path(shutil.copytree(finished(factory.getbasetemp()), folder / "project"))


def dvc(*arguments: str) -> None:
    """Run DVC here."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "true"}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True, env=environment)


def turn(old: str, new: str) -> None:
    """Edit params.yaml."""
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))


def client() -> Any:
    """A client on the database here."""
    from mlflow import MlflowClient

    return MlflowClient(track.tracking_uri(), track.tracking_uri())


def runs(kind: str = "stage") -> list[Any]:
    """All runs of a kind."""
    experiment = client().get_experiment_by_name("leanlm").experiment_id
    return list(client().search_runs([experiment], f"tags.`leanlm.kind` = '{kind}'"))


def run_of(stage: str) -> Any:
    """The one run of a stage."""
    (run,) = [run for run in runs() if run.data.tags["leanlm.stage"] == stage]
    return run


def python(code: str) -> subprocess.Popen[str]:
    """Start another process here that runs `code`."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


class Training:
    """What a training stage leaves in work/ while it runs."""

    def __init__(self, stage: str, key: str) -> None:
        self.path = Path("work", stage, key, "history.csv")
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, *steps: int, pace: float = 0.1) -> None:
        """Append rows of steps that took `pace` seconds each."""
        fresh = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(COLUMNS)
            writer.writerows((step, 5.0 / (step + 1), 0.001, 1.0, 100.0, pace * step, "") for step in steps)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def steps(run: Any, name: str = "loss") -> list[int]:
    """The steps of a curve, as often as they were sent."""
    return sorted(point.step for point in client().get_metric_history(run.info.run_id, name))


def open_runs() -> list[Any]:
    """Live runs that hold at least one point."""
    try:
        return [run for run in runs() if IDENTITY not in run.data.tags and "loss" in run.data.metrics]
    except AttributeError:  # the experiment isn't there yet
        return []
