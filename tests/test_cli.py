"""The command line where nothing runs: help, mistakes, lists, terminals."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import child, edit, repro
from tasks.core.schema import Choice
from tasks.ledger import budget
from tasks.params import STAGES, Params, render
from tests import flow, toy


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project in which nothing has run and nothing may."""
    return toy.make(tmp_path_factory.mktemp("bare") / "toy")


def test_help_is_quick() -> None:
    """`--help` takes under half a second and imports no heavy library."""
    code = "import sys, flows.cli; print(*(m for m in sys.modules if m in %r))"
    heavy = ("torch", "prefect", "mlflow", "transformers", "pydantic", "dvc", "psutil")
    assert toy.shell([sys.executable, "-c", code % (heavy,)], toy.REPOSITORY).stdout.split() == []
    best = min(flow.timed(toy.leanlm, toy.REPOSITORY, "--help")[0] for _ in range(3))
    assert best < 0.5


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
        (["-S", "finetune.method=lorra"], r"finetune: method 'lorra' is not one of lora, "),
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


def test_a_mistake_in_the_file_is_said_before_anything_starts(bare: Path) -> None:
    """params.yaml edited by hand: the mistake itself is said, and no server has been started for it."""
    before = (bare / "params.yaml").read_text()
    (bare / "params.yaml").write_text(before.replace('method: "lora"', 'method: "lorra"'))
    done = toy.leanlm(bare, "run")
    (bare / "params.yaml").write_text(before)
    assert done.returncode == 2
    assert "finetune: method 'lorra' is not one of lora, " in done.stderr
    assert "restore it" not in done.stderr
    assert not (bare / "work" / "servers.json").exists()


@pytest.mark.parametrize("stage", list(STAGES))
def test_only_what_has_checkpoints_is_said_to_go_on(stage: str, tmp_path: Path) -> None:
    """After a signal: what goes on or begins anew; after SIGKILL also what would take less memory."""
    log = tmp_path / "log"
    for code, memory in ((-9, True), (137, True), (-15, False)):
        log.write_text(f"failed to run: python -m tasks {stage}, exited with {code}")
        said = str(repro._failure(stage, 1, log, tmp_path / "none"))
        assert ("goes on from the last checkpoint" in said) == (stage in ("pretrain", "finetune"))
        assert ("begins anew" in said) == (stage not in ("pretrain", "finetune"))
        assert (budget.LESS_MEMORY[stage] in said) == memory


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--points", "--minutes", "3"], "--points trains nothing, so --minutes has no effect"),
        (["--points", "--flops", "1e12"], "--points trains nothing, so --flops has no effect"),
        (["--minutes", "10", "--flops", "1e12"], "--minutes and --flops: found both"),
    ],
)
def test_a_ladder_has_one_budget(bare: Path, options: list[str], words: str) -> None:
    """An option that would be ignored is refused."""
    done = toy.leanlm(bare, "scale", *options)
    assert done.returncode == 2
    assert words in done.stderr


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
    assert "what they share: evaluate, budget, prices" in unknown.stderr
    assert "evaluate.batch_size" in toy.leanlm(toy.REPOSITORY, "techniques", "evaluate").stdout
    empty = toy.leanlm(toy.REPOSITORY, "techniques", "--markdown", "evaluate")
    assert (empty.returncode, empty.stdout) == (2, "")
    assert "it has no techniques" in empty.stderr


def test_a_bad_schedule(bare: Path) -> None:
    """A schedule that isn't one is refused with what is expected."""
    cron = toy.leanlm(bare, "schedule", "--cron", "every night")
    assert cron.returncode == 2
    assert "five fields" in cron.stderr
    zone = toy.leanlm(bare, "schedule", "--cron", "0 3 * * *", "--timezone", "Mars")
    assert zone.returncode == 2
    assert "'Mars'" in zone.stderr


@pytest.mark.parametrize("on_terminal", [False, True])
def test_sigterm_ends_the_child_at_once(tmp_path: Path, on_terminal: bool) -> None:
    """SIGTERM to a command with a child, e.g. `compare`: words, exit code 130, no child and no note of one is left.

    On a terminal, too, only the parent has been told: the child isn't waited for, as it is after Ctrl-C.
    """
    code = (
        "import sys; from pathlib import Path; from flows import child, cli;"
        'says = \'import time; open("up", "w").close(); time.sleep(600)\';'
        "cli.main.add_command(cli.click.Command('hang', callback=lambda: "
        "child.run([sys.executable, '-c', says], Path('log'), Path('note'), {}))); cli.main(['hang'])"
    )
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=toy.ENVIRONMENT,
        stdin=writer if on_terminal else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    flow.awaited((tmp_path / "up").exists)
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    seconds, (_, said) = flow.timed(process.communicate)
    os.close(reader)
    os.close(writer)
    assert (process.returncode, said) == (130, "stopped; what was done so far is kept\n")
    assert seconds < child.GRACE_SECONDS
    assert children
    assert not any(child.is_alive(each.pid, each.create_time()) for each in children)
    assert not (tmp_path / "note").exists()


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


def test_two_edits_within_a_second_are_both_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in params.yaml before an edit is kept, however quickly the next one follows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.edit.time.strftime", lambda _: "now")
    toy.set_params(tmp_path, {})
    before = []
    for seed in (2, 3, 4):
        text = (tmp_path / "params.yaml").read_text().replace("seed: ", f"# by hand, before {seed}\nseed: ")
        (tmp_path / "params.yaml").write_text(text)
        before.append(text)
        edit.apply(None, [f"seed={seed}"])
    kept = [(tmp_path / "work" / "params" / f"now{number}.yaml").read_text() for number in ("", "-2", "-3")]
    assert kept == before


def test_an_edit_is_stable() -> None:
    """Rendering what was loaded gives the same text: an edit changes the value it names and nothing else."""
    assert render(Params.model_validate(Params().model_dump(mode="json"))) == render(Params())
