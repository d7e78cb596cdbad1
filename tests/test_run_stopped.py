"""`leanlm run` that fails, is interrupted or killed: the words, the exit code, and how the next one goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from flows import child
from tests import flow, toy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_failing_stage(lifecycle: Path, code: int) -> None:
    """A stage's own words and exit code, no traceback; the chain stops; Prefect says Failed with the sentence."""
    toy.set_params(lifecycle, {"finetune.learning_rate": code / 10, "finetune.lora.r": code * 3})
    done = toy.leanlm(lifecycle, "run", TOY_finetune=f"{code}:finetune.steps: too few of them")
    assert done.returncode == code
    assert "finetune: finetune.steps: too few of them" in done.stderr
    assert "Traceback" not in done.stderr
    assert "compress" not in done.stdout
    assert not (lifecycle / "artifacts" / "finetune").exists()
    assert flow.last_run(lifecycle)["type"] == "FAILED"
    assert "finetune.steps: too few of them" in flow.last_run(lifecycle)["message"]
    toy.set_params(lifecycle, {})
    assert flow.computed(toy.leanlm(lifecycle, "run")) == []


def test_a_crashed_and_a_killed_stage(lifecycle: Path) -> None:
    """What a stage said last, and where the rest is; a signal in words, with what to do."""
    toy.set_params(lifecycle, {"finetune.lora.r": 5})
    crashed = toy.leanlm(lifecycle, "run", TOY_finetune="crash:out of luck")
    assert crashed.returncode == 1
    assert "error: finetune: RuntimeError: out of luck\n" in crashed.stderr
    assert "RuntimeError: out of luck" in (lifecycle / "work" / "logs" / "finetune.log").read_text()
    killed = toy.leanlm(lifecycle, "run", TOY_finetune="kill")
    assert killed.returncode == 1
    assert "finetune: ended by SIGKILL" in killed.stderr
    assert "if memory ran out, lower finetune.batch_size" in killed.stderr
    assert "run again: it goes on from the last checkpoint" in killed.stderr
    toy.set_params(lifecycle, {})
    assert flow.computed(toy.leanlm(lifecycle, "run")) == []


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(lifecycle: Path, told: signal.Signals) -> None:
    """Ctrl-C or SIGTERM: the stage ends, exit code 130, in words, nothing of Prefect's own; DVC is left tidy."""
    toy.set_params(lifecycle, {"compress.int8.llm_int8_threshold": 4.5 + told})
    process = flow.start_and_hang(lifecycle, "compress")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(told)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what was done so far is kept" in said
    assert "Traceback" not in said
    assert "EventsWorker" not in said
    assert not any(child.is_alive(each.pid, each.create_time()) for each in children)
    assert flow.computed(toy.leanlm(lifecycle, "run"))[0] == "compress"


def test_killed_and_run_again(lifecycle: Path) -> None:
    """kill -9 of `leanlm`: the next run ends the orphaned stage, runs it, and Prefect's list has no run that is dead."""
    toy.set_params(lifecycle, {"compress.int8.llm_int8_threshold": 3.5})
    process = flow.start_and_hang(lifecycle, "compress")
    orphans = psutil.Process(process.pid).children(recursive=True)
    second = toy.leanlm(lifecycle, "run")
    assert second.returncode == 2
    assert "another run is going on" in second.stderr
    process.kill()
    process.communicate()
    assert any(each.is_running() for each in orphans)
    again = toy.leanlm(lifecycle, "run")
    assert flow.computed(again)[0] == "compress"
    assert "a killed run had left its stage at work" in again.stderr
    assert not any(child.is_alive(each.pid, each.create_time()) for each in orphans)
    running = {"state": {"type": {"any_": ["RUNNING"]}}}
    assert flow.ask(lifecycle, "flow_runs/filter", flow_runs=running) == []
