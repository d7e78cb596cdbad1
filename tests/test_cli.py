"""The command line: what people see, on a toy project with real DVC and a real Prefect server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import child
from tasks.core.schema import Choice
from tasks.params import STAGES, Params, render
from tests import toy


@pytest.fixture(scope="module")
def lifecycle(tmp_path_factory: pytest.TempPathFactory, prefect_server: Path) -> Path:
    """A toy project after its first `leanlm run`. Tests walk on from the state that the one before left."""
    return prepared(toy.make(tmp_path_factory.mktemp("cli") / "toy"), prefect_server)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project in which nothing has run and nothing may."""
    return toy.make(tmp_path_factory.mktemp("bare") / "toy")


def prepared(folder: Path, prefect_server: Path) -> Path:
    """`folder` with the tests' Prefect server as its own, and every stage run once."""
    (folder / "work").mkdir()
    (folder / "work" / "servers.json").write_text(prefect_server.read_text())
    assert states(toy.leanlm(folder, "run")) == dict.fromkeys(STAGES, "Completed")
    return folder


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Stage -> Completed or Cached, as `leanlm run` printed it."""
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(re.findall(r"^(\w+) +(Completed|Cached) +[\d.]+ s", done.stdout, re.MULTILINE))


def computed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that were computed."""
    return [stage for stage, state in states(done).items() if state == "Completed"]


def ask(folder: Path, path: str, **body: Any) -> Any:
    """A question to the Prefect server of a project."""
    url = json.loads((folder / "work" / "servers.json").read_text())["prefect"]["url"]
    request = urllib.request.Request(
        f"{url}/api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def last_run(folder: Path) -> Any:
    """The state of the youngest flow run."""
    return ask(folder, "flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]["state"]


def start_and_hang(folder: Path, stage: str) -> subprocess.Popen[str]:
    """`leanlm run` whose `stage` doesn't come to an end, once that stage is at work."""
    log = folder / "work" / "logs" / f"{stage}.log"
    log.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "run"],
        cwd=folder,
        env={**toy.ENVIRONMENT, f"TOY_{stage}": "sleep"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (log.exists() and "said on stderr" in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_help_is_quick() -> None:
    """`--help` takes under half a second and imports no heavy library."""
    code = "import sys, flows.cli; print(*(m for m in sys.modules if m in %r))"
    heavy = ("torch", "prefect", "mlflow", "transformers", "pydantic", "dvc", "psutil")
    assert toy.shell([sys.executable, "-c", code % (heavy,)], toy.REPOSITORY).stdout.split() == []
    best = min(timed(toy.leanlm, toy.REPOSITORY, "--help")[0] for _ in range(3))
    assert best < 0.5


def timed(function: Any, *arguments: Any) -> tuple[float, Any]:
    """Seconds and result of a call."""
    began = time.monotonic()
    result = function(*arguments)
    return time.monotonic() - began, result


@pytest.mark.parametrize("command", ["run", "status", "plan", "report", "track", "ui", "down"])
def test_outside_a_project(tmp_path: Path, command: str) -> None:
    """In a folder that is no project, every command says so and leaves nothing."""
    done = toy.leanlm(tmp_path, command)
    assert done.returncode == 2
    assert "not a project folder" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-S", "finetune.lora.rr=4"], r"finetune\.lora\.rr: unknown parameter\n.*did you mean finetune\.lora\.r"),
        (["-S", "finetune.lora.r=0"], r"finetune\.lora\.r: found 0"),
        (["-S", "finetune.lora.r=many"], r"finetune\.lora\.r: found 'many'"),
        (["-S", "finetune.method=lorra"], r"finetune: method 'lorra' is not one of lora, full"),
        (["-S", "finetune.lora.r"], "expected NAME=VALUE"),
        (["-S", "finetune.lora.r=["], "not YAML"),
        (["--preset", "smal"], r"--preset smal: no such preset\n.*there are: small"),
    ],
)
def test_a_bad_edit_changes_nothing(bare: Path, arguments: list[str], words: str) -> None:
    """A parameter, value or preset that isn't one: a sentence, exit code 2, and params.yaml is as it was."""
    before = (bare / "params.yaml").read_bytes()
    done = toy.leanlm(bare, "run", *arguments)
    assert done.returncode == 2
    assert re.search(words, done.stderr)
    assert "Traceback" not in done.stderr
    assert (bare / "params.yaml").read_bytes() == before
    assert not (bare / "work" / "prefect").exists()


def test_techniques() -> None:
    """Every technique and every parameter is listed with its description; one stage alone on request."""
    text = toy.leanlm(toy.REPOSITORY, "techniques").stdout
    table = toy.leanlm(toy.REPOSITORY, "techniques", "--markdown").stdout
    for stage, block in STAGES.items():
        if issubclass(block, Choice):
            for name, technique in block.techniques().items():
                assert f"| `{stage}.{name}` |" in table
                assert (technique.__doc__ or "").splitlines()[0] in text
                assert all(f"{stage}.{name}.{field} = " in text for field in technique.model_fields)
    assert "| `data.tokenizer.train` |" in table
    assert "finetune.lora.r = 8  (integer > 0)  Rank" in text
    assert "compress" not in toy.leanlm(toy.REPOSITORY, "techniques", "finetune").stdout
    unknown = toy.leanlm(toy.REPOSITORY, "techniques", "finetunes")
    assert unknown.returncode == 2
    assert "stages: data, design" in unknown.stderr


def test_a_second_run_computes_nothing(lifecycle: Path) -> None:
    """Everything Cached, within 8 seconds, nothing published twice; DVC agrees that there is nothing to do."""
    before = {stage: toy.report(lifecycle, stage) for stage in STAGES}
    seconds, done = timed(toy.leanlm, lifecycle, "run")
    assert states(done) == dict.fromkeys(STAGES, "Cached")
    assert seconds < 8
    assert {stage: toy.report(lifecycle, stage) for stage in STAGES} == before
    assert toy.leanlm(lifecycle, "track").stdout == "MLflow has everything already\n"
    assert toy.leanlm(lifecycle, "status").stdout == "everything is up to date\n"
    assert last_run(lifecycle)["type"] == "COMPLETED"
    assert f"report: {Path('reports', 'report.html')}" in done.stdout
    assert (lifecycle / "reports" / "report.html").exists()


def test_an_override_is_an_edit(lifecycle: Path) -> None:
    """`-S` rewrites params.yaml and runs what depends on it; going back computes nothing and brings the bytes back."""
    out = lifecycle / "artifacts" / "finetune" / "out.json"
    eight = out.read_bytes()
    assert computed(toy.leanlm(lifecycle, "run", "-S", "finetune.lora.r=16"))[:1] == ["finetune"]
    values = Params().model_dump(mode="json")
    assert "    r: 16  # Rank" in (lifecycle / "params.yaml").read_text()
    assert out.read_bytes() != eight
    assert computed(toy.leanlm(lifecycle, "run", "-S", f"finetune.lora.r={values['finetune']['lora']['r']}")) == []
    assert out.read_bytes() == eight


def test_a_preset_keeps_the_old_file(lifecycle: Path) -> None:
    """A preset replaces params.yaml by what differs from the defaults, and the old file is kept, which is said."""
    own = (lifecycle / "params.yaml").read_text() + "# a remark of mine\n"
    (lifecycle / "params.yaml").write_text(own)
    done = toy.leanlm(lifecycle, "run", "--preset", "small", "-S", "data.source=data/stdlib")
    assert states(done)["finetune"] == "Completed"
    kept = re.search(r"^(work/params/\S+\.yaml):", done.stdout, re.MULTILINE)
    assert kept
    assert (lifecycle / kept[1]).read_text() == own
    toy.set_params(lifecycle, {})
    assert computed(toy.leanlm(lifecycle, "run")) == []


def test_deleted_artifacts_are_restored(lifecycle: Path) -> None:
    """A deleted artifact comes back without computing, and so does the report page."""
    out = lifecycle / "artifacts" / "pretrain" / "out.json"
    kept = out.read_bytes()
    out.unlink()
    (lifecycle / "reports" / "report.html").unlink()
    assert computed(toy.leanlm(lifecycle, "run")) == []
    assert out.read_bytes() == kept
    assert (lifecycle / "reports" / "report.html").exists()


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
    assert last_run(lifecycle)["type"] == "FAILED"
    assert "finetune.steps: too few of them" in last_run(lifecycle)["message"]
    toy.set_params(lifecycle, {})
    assert computed(toy.leanlm(lifecycle, "run")) == []


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
    assert "run again: it goes on from the last checkpoint" in killed.stderr
    toy.set_params(lifecycle, {})
    assert computed(toy.leanlm(lifecycle, "run")) == []


def test_interrupted(lifecycle: Path) -> None:
    """Ctrl-C: the stage ends, exit code 130, no traceback of ours; DVC is left tidy."""
    toy.set_params(lifecycle, {"compress.int8.llm_int8_threshold": 4.5})
    process = start_and_hang(lifecycle, "compress")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; what was done so far is kept" in said
    assert "Traceback" not in said
    assert not any(child.is_alive(each.pid, each.create_time()) for each in children)
    assert computed(toy.leanlm(lifecycle, "run"))[0] == "compress"


def test_killed_and_run_again(lifecycle: Path) -> None:
    """kill -9 of `leanlm`: the next run ends the orphaned stage, runs it, and Prefect's list has no run that is dead."""
    toy.set_params(lifecycle, {"compress.int8.llm_int8_threshold": 3.5})
    process = start_and_hang(lifecycle, "compress")
    orphans = psutil.Process(process.pid).children(recursive=True)
    second = toy.leanlm(lifecycle, "run")
    assert second.returncode == 2
    assert "another run is going on" in second.stderr
    process.kill()
    process.communicate()
    assert any(each.is_running() for each in orphans)
    again = toy.leanlm(lifecycle, "run")
    assert computed(again)[0] == "compress"
    assert "a killed run had left its stage at work" in again.stderr
    assert not any(child.is_alive(each.pid, each.create_time()) for each in orphans)
    running = {"state": {"type": {"any_": ["RUNNING"]}}}
    assert ask(lifecycle, "flow_runs/filter", flow_runs=running) == []


def test_missing_input(lifecycle: Path) -> None:
    """A source that isn't there: which parameter names it; nothing runs."""
    done = toy.leanlm(lifecycle, "run", "-S", "data.source=no/such/folder")
    assert done.returncode == 2
    assert "no/such/folder: not found" in done.stderr
    assert "`data.source`" in done.stderr
    toy.set_params(lifecycle, {})


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
    toy.set_params(lifecycle, {})
    toy.leanlm(lifecycle, "run")
    toy.set_params(lifecycle, {"budget.flops": 1.0})
    assert set(states(toy.leanlm(lifecycle, "run")).values()) == {"Cached"}
    toy.set_params(lifecycle, {})


def test_report(lifecycle: Path, tmp_path: Path) -> None:
    """`report --output` writes where it is told and says so."""
    page = tmp_path / "deep" / "page.html"
    assert toy.leanlm(lifecycle, "report", "--output", str(page)).stdout == f"{page}\n"
    assert page.read_text().startswith("<!")


def test_a_bad_schedule(bare: Path) -> None:
    """A schedule that isn't one is refused with what is expected."""
    cron = toy.leanlm(bare, "schedule", "--cron", "every night")
    assert cron.returncode == 2
    assert "five fields" in cron.stderr
    zone = toy.leanlm(bare, "schedule", "--cron", "0 3 * * *", "--timezone", "Mars")
    assert zone.returncode == 2
    assert "'Mars'" in zone.stderr


@pytest.mark.slow
def test_schedule(lifecycle: Path) -> None:
    """A served schedule: the server plans runs at its times, a run that is asked for now is done, Ctrl-C ends it."""
    command = [sys.executable, "-m", "flows", "schedule", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin"]
    process = subprocess.Popen(
        command, cwd=lifecycle, env=toy.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deployment = awaited(lambda: ask(lifecycle, "deployments/filter"))[0]["id"]
        mine = {"deployment_id": {"any_": [deployment]}}
        planned = awaited(lambda: ask(lifecycle, "flow_runs/filter", flow_runs=mine))
        assert {run["state"]["type"] for run in planned} == {"SCHEDULED"}
        assert {run["expected_start_time"][14:19] for run in planned} == {"00:00"}
        now = ask(lifecycle, f"deployments/{deployment}/create_flow_run")["id"]
        state = {"id": {"any_": [now]}, "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}
        done = awaited(lambda: ask(lifecycle, "flow_runs/filter", flow_runs=state))
        assert done[0]["state"]["type"] == "COMPLETED", done[0]["state"]["message"]
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in said


def awaited(question: Any) -> Any:
    """The first answer that isn't empty, within 90 seconds."""
    deadline = time.monotonic() + 90
    while not (answer := question()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return answer


def test_a_terminal_stays_one(tmp_path: Path) -> None:
    """On a terminal the child has one too, so that progress bars work; elsewhere it has none. Both are logged."""
    code = (
        "import sys; from pathlib import Path; from flows import child;"
        "says = 'import sys; print(sys.stderr.isatty(), file=sys.stderr); sys.exit(7)';"
        "log = Path('log'); sys.exit(child.run([sys.executable, '-c', says], log, Path('note'), {}))"
    )
    reader, writer = pty.openpty()
    options: dict[str, Any] = {"cwd": tmp_path, "env": toy.ENVIRONMENT, "stdin": subprocess.DEVNULL}
    on_terminal = subprocess.run([sys.executable, "-c", code], stderr=writer, check=False, **options)
    os.close(writer)
    assert on_terminal.returncode == 7
    assert os.read(reader, 100).split() == [b"True"]
    os.close(reader)
    assert (tmp_path / "log").read_text() == "True\n"
    assert not (tmp_path / "note").exists()
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)
    assert (piped.returncode, piped.stderr) == (7, "False\n")


def test_an_edit_is_stable() -> None:
    """Rendering what was loaded gives the same text: an edit changes the value it names and nothing else."""
    assert render(Params.model_validate(Params().model_dump(mode="json"))) == render(Params())
