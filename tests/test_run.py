"""`leanlm run` and what belongs to it, on a toy project with real DVC and a real Prefect server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.params import STAGES, Params
from tests import flow, toy

pytestmark = pytest.mark.slow


def test_a_second_run_computes_nothing(lifecycle: Path) -> None:
    """Everything Cached, nothing published twice; DVC agrees that there is nothing to do."""
    before = {stage: toy.report(lifecycle, stage) for stage in STAGES}
    done = toy.leanlm(lifecycle, "run")
    assert flow.states(done) == dict.fromkeys(STAGES, "Cached")
    assert {stage: toy.report(lifecycle, stage) for stage in STAGES} == before
    assert toy.leanlm(lifecycle, "track").stdout == "MLflow has everything already\n"
    assert toy.leanlm(lifecycle, "status").stdout == "everything is up to date\n"
    assert flow.last_run(lifecycle)["type"] == "COMPLETED"
    assert f"report: {Path('reports', 'report.html')}" in done.stdout
    assert (lifecycle / "reports" / "report.html").exists()


def test_an_override_is_an_edit(lifecycle: Path) -> None:
    """`-S` rewrites params.yaml and runs what depends on it; going back computes nothing and brings the bytes back."""
    out = lifecycle / "artifacts" / "finetune" / "out.json"
    eight = out.read_bytes()
    assert flow.computed(toy.leanlm(lifecycle, "run", "-S", "finetune.lora.r=16"))[:1] == ["finetune"]
    values = Params().model_dump(mode="json")
    assert "    r: 16  # Rank" in (lifecycle / "params.yaml").read_text()
    assert out.read_bytes() != eight
    assert flow.computed(toy.leanlm(lifecycle, "run", "-S", f"finetune.lora.r={values['finetune']['lora']['r']}")) == []
    assert out.read_bytes() == eight


def test_a_preset_keeps_the_old_file(lifecycle: Path) -> None:
    """A preset replaces params.yaml by what differs from the defaults, and the old file is kept, which is said."""
    own = (lifecycle / "params.yaml").read_text() + "# a remark of mine\n"
    (lifecycle / "params.yaml").write_text(own)
    done = toy.leanlm(lifecycle, "run", "--preset", "small", "-S", "data.source=data/stdlib")
    assert flow.states(done)["finetune"] == "Completed"
    kept = re.search(r"^(work/params/\S+\.yaml):", done.stdout, re.MULTILINE)
    assert kept
    assert (lifecycle / kept[1]).read_text() == own
    toy.set_params(lifecycle, {})
    assert flow.computed(toy.leanlm(lifecycle, "run")) == []


def test_deleted_artifacts_are_restored(lifecycle: Path) -> None:
    """A deleted artifact comes back without computing, and so does the report page."""
    out = lifecycle / "artifacts" / "pretrain" / "out.json"
    kept = out.read_bytes()
    out.unlink()
    (lifecycle / "reports" / "report.html").unlink()
    assert flow.computed(toy.leanlm(lifecycle, "run")) == []
    assert out.read_bytes() == kept
    assert (lifecycle / "reports" / "report.html").exists()


def test_missing_input(lifecycle: Path) -> None:
    """A source that isn't there: which parameter names it; nothing runs."""
    done = toy.leanlm(lifecycle, "run", "-S", "data.source=no/such/folder")
    assert done.returncode == 2
    assert "no/such/folder: not found" in done.stderr
    assert "`data.source`" in done.stderr


def test_plan_and_budget(lifecycle: Path) -> None:
    """`plan` has a line per stage; a budget below the prediction refuses the run before any stage, exit code 3."""
    plan = toy.leanlm(lifecycle, "plan")
    assert plan.returncode == 0, plan.stderr
    assert [line.split()[0] for line in plan.stdout.splitlines()[1:8]] == [*STAGES, "total"]
    assert "no budget is set" in plan.stdout
    toy.set_params(lifecycle, {"budget.flops": 1.0, "pretrain.learning_rate": 0.02})
    refused = toy.leanlm(lifecycle, "run")
    assert refused.returncode == 3, refused.stderr
    assert "budget.flops" in refused.stderr
    assert refused.stdout == ""
    assert toy.leanlm(lifecycle, "plan").returncode == 3
    toy.set_params(lifecycle, {"budget.flops": 1.0})
    assert set(flow.states(toy.leanlm(lifecycle, "run")).values()) == {"Cached"}


def test_report(lifecycle: Path, tmp_path: Path) -> None:
    """`report --output` writes where it is told and says so."""
    page = tmp_path / "deep" / "page.html"
    assert toy.leanlm(lifecycle, "report", "--output", str(page)).stdout == f"{page}\n"
    assert page.read_text().startswith("<!")


def test_schedule(lifecycle: Path) -> None:
    """A served schedule: the server plans runs at its times, a run that is asked for now is done, Ctrl-C ends it."""
    command = [sys.executable, "-m", "flows", "schedule", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin"]
    process = subprocess.Popen(
        command, cwd=lifecycle, env=toy.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deployment = flow.awaited(lambda: flow.ask(lifecycle, "deployments/filter"))[0]["id"]
        mine = {"deployment_id": {"any_": [deployment]}}
        planned = flow.awaited(lambda: flow.ask(lifecycle, "flow_runs/filter", flow_runs=mine))
        assert {run["state"]["type"] for run in planned} == {"SCHEDULED"}
        assert {run["expected_start_time"][14:19] for run in planned} == {"00:00"}
        now = flow.ask(lifecycle, f"deployments/{deployment}/create_flow_run")["id"]
        state = {"id": {"any_": [now]}, "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}
        done = flow.awaited(lambda: flow.ask(lifecycle, "flow_runs/filter", flow_runs=state))
        assert done[0]["state"]["type"] == "COMPLETED", done[0]["state"]["message"]
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said
