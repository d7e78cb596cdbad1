"""The shell around every stage: declaration in, parameters validated, budget and instruments on, out written atomically."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

from tasks import compatibility
from tasks import params as parameters
from tasks.acquire import acquire
from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.job import Job
from tasks.core.measure import Metrics, modelled
from tasks.core.schema import Section, validate
from tasks.declaration import Declaration, declare
from tasks.ledger import budget, machine, predict, report, scores, ways_out
from tasks.ledger.meter import Meter, Spent
from tasks.ledger.watch import Watch
from tasks.params import STAGES, Params
from tasks.sentences import in_words

WORK = Path("work")
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "xllamacpp", "gguf", "safetensors")


def main(stage: str) -> int:
    """Run one stage; returns the exit code. What went wrong stays in `work/<stage>/error.txt` for whoever asked."""
    note = WORK / stage / "error.txt"
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        with in_words(stage):
            run(stage)
    except UserError as error:
        if "LEANLM_INVOCATION" not in os.environ:  # the flow says it itself, last
            print(f"error: {error}", file=sys.stderr, flush=True)
        with suppress(OSError):  # leaving the note is a courtesy: a full disk must not hide the first error
            note.write_text(str(error), encoding="utf-8")
        return error.code
    except KeyboardInterrupt:
        goes_on = " and it goes on from its last checkpoint" if any((WORK / stage).glob("*/checkpoint-*")) else ""
        print(f"{stage}: interrupted; run again{goes_on}", file=sys.stderr)
        return 130
    return 0


def run(stage: str) -> None:
    """Run one stage and write its output and report.

    Raises:
        UserError: whatever the user can mend.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    values = read_yaml(parameters.PATH)
    everything = validate(Params, values)
    declaration = declare(stage, values)
    job_folder = WORK / stage / declaration.key()
    job_folder.mkdir(parents=True, exist_ok=True)
    spent_path = job_folder / "spent.json"
    measured_machine = machine.measure()
    out = job_folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    busy = scores.busy_seconds()
    with Meter(Spent.load(spent_path)) as meter:
        inputs = {name: acquire(path) for name, path in declaration.inputs.items()}
        compatibility.check_rows(stage, everything)
        forecast = predict.forecasts(everything, measured_machine, stages=(stage,))[stage]
        predicted = forecast.predicted
        before = _upstream(stage, everything)
        _refuse(stage, predicted, everything, before)
        watch = Watch(everything.budget, before, meter, everything.prices, spent_path)
        job = _job(stage, job_folder, watch, measured_machine)
        try:
            metrics = _call(declaration, inputs, out, job)
        finally:
            meter.save(spent_path, force=True)
    metrics = report.priced(meter.metrics() | metrics, everything.prices)
    others = _others(busy, meter.spent())
    _publish(declaration, job, out, _derived(metrics), predicted)
    _score(measured_machine.name, forecast, metrics, others)


def _job(stage: str, folder: Path, watch: Watch, rates: machine.Machine) -> Job:
    """What the shell lends the stage."""
    return Job(
        stage=stage,
        work=folder,
        over_budget=watch,
        spent=watch.spent,
        left=watch.left,
        gemm_flops_per_second=rates.gemm_flops_per_second,
        bandwidth_bytes_per_second=rates.bandwidth_bytes_per_second,
        host_bandwidth_bytes_per_second=rates.host_bandwidth_bytes_per_second,
    )


def _others(busy: float, spent: Spent) -> float:
    """Share of the machine that other processes kept busy since `busy` was read."""
    used = scores.busy_seconds() - busy - spent.cpu
    return round(min(1.0, max(0.0, used / (spent.wall * machine.usable_cores()))), 3)


def _score(name: str, forecast: predict.Forecast, metrics: Metrics, others: float) -> None:
    """Keep prediction and outcome for the predictions to come."""
    kind = forecast.kind
    score = scores.made((kind.stage, kind.family, kind.technique), forecast.raw, metrics, dict(_versions()), others)
    if score is not None:
        with suppress(OSError):
            scores.append(name, score)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked twice, it still ends in order
    raise KeyboardInterrupt


def _call(declaration: Declaration, inputs: Mapping[str, Path], out: Path, job: Job) -> Metrics:
    stage = declaration.stage
    sections: dict[str, Any] = {
        name: _section(name, value) for name, value in declaration.params.items() if name != stage
    }
    block = validate(STAGES[stage], declaration.params[stage], stage)
    function = importlib.import_module(f"tasks.{stage}.run").run
    metrics: Metrics = function(block, **sections, **inputs, out=out, job=job)
    return metrics


def _section(name: str, value: Any) -> Any:
    """A declared parameter outside the stage's own block: a validated section, or a plain value such as the seed."""
    kind = Params.model_fields[name].annotation
    return validate(kind, value, name) if isinstance(kind, type) and issubclass(kind, Section) else value


def _upstream(stage: str, everything: Params) -> Mapping[str, Metrics]:
    """The priced ledger of the stages before this one."""
    reports = {name: report.read(name, everything.prices) for name in list(STAGES)[: list(STAGES).index(stage)]}
    return {name: entry["metrics"] for name, entry in reports.items() if entry}


def _refuse(stage: str, predicted: Metrics, everything: Params, before: Mapping[str, Metrics]) -> None:
    """Refuse what won't fit the budget or this machine's memory, with what would; later stages are to fit as well."""
    later = list(STAGES)[list(STAGES).index(stage) + 1 :]
    ways = partial(ways_out.offer, everything, [stage], before, later=later)
    budget.refuse({stage: predicted}, everything.budget, before, ways)
    peak, (free, where) = predicted.get("peak_memory_bytes"), machine.room(stage, machine.measure())
    if peak is not None and peak.value is not None:
        budget.check_memory(stage, peak.value, free, lambda: ways(free_memory=free), where)


def _derived(metrics: Metrics) -> Metrics:
    """Metrics that follow from others: cost per parameter."""
    dollars, size = metrics.get("dollars"), metrics.get("parameters")
    if dollars and size and dollars.value is not None and size.value:
        return metrics | {"dollars_per_parameter": modelled(dollars.value / size.value, "dollars / parameters")}
    return metrics


def _publish(declaration: Declaration, job: Job, out: Path, metrics: Metrics, predicted: Metrics) -> None:
    """Move the finished output to its place, write the report, forget the unfinished work."""
    document = {
        "stage": declaration.stage,
        "key": job.work.name,
        "invocation": os.environ.get("LEANLM_INVOCATION"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": {"python": sys.version.split()[0], **dict(_versions())},
        "metrics": report.to_json(metrics),
        "predicted": report.to_json(predicted),
    }
    if declaration.history is not None:
        declaration.history.parent.mkdir(parents=True, exist_ok=True)
        if not job.history.exists():
            job.history.write_text("step,loss\n", encoding="utf-8")
        # a copy: killed before the output is in place, the next attempt still has its history
        copied = declaration.history.with_suffix(".tmp")
        shutil.copyfile(job.history, copied)
        os.replace(copied, declaration.history)
    declaration.out.parent.mkdir(parents=True, exist_ok=True)
    old = job.work / "old"
    if declaration.out.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(declaration.out, old)
    os.replace(out, declaration.out)
    report.write(declaration.stage, document)
    shutil.rmtree(job.work, ignore_errors=True)


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue
