"""`leanlm plan` with limits, as a person meets it: what it prints, the page it writes, and what --apply does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows import planning
from flows.cli import main
from tasks.core.errors import UserError
from tasks.params import Params, load, override, render
from tests.balanced_html import parsed
from tests.test_planner import MACHINE

LIMITED = ["--minutes", "30", "--memory", "512MB", "--tokens-per-second", "30", "--family", "llama"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with parameters and a text, on a machine of known speed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.ledger.machine.measure", lambda *_, **__: MACHINE)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "text.txt").write_text("What is written down can be read again.\n" * 200_000)
    configure(**{"data.source": "text.txt"})
    return tmp_path


def configure(**assignments: object) -> None:
    """Write params.yaml: the defaults, and these."""
    Path("params.yaml").write_text(render(Params.model_validate(override(Params().model_dump(), assignments))))


def leanlm(*arguments: str) -> Result:
    """`leanlm plan ...` in this process."""
    return CliRunner().invoke(main, ["plan", *arguments])


def stages(output: str) -> str:
    """The table of the stages' predictions."""
    found = re.search(r"^ +FLOPs .*?^total[^\n]*$", output, re.MULTILINE | re.DOTALL)
    assert found, output
    return found[0]


def test_plan_without_limits_is_the_configured_lifecycle(project: Path) -> None:
    """Without an option that asks for a search nothing is chosen and nothing written."""
    done = leanlm()
    assert done.exit_code == 0, done.output
    assert "no budget is set" in done.output
    assert "Pareto" not in done.output
    assert not (project / "work" / "plan.html").exists()


@pytest.mark.slow
def test_what_is_applied_is_what_was_predicted(project: Path) -> None:
    """--apply writes the choice: `leanlm plan` then predicts the same for every stage, and planning again changes nothing."""
    before = (project / "params.yaml").read_text()
    looked = leanlm(*LIMITED)
    assert looked.exit_code == 0, looked.output
    assert (project / "params.yaml").read_text() == before
    done = leanlm(*LIMITED, "--apply")
    assert stages(done.output) == stages(looked.output)
    params = load()
    assert f"{params.pretrain.steps:,} steps" in done.output
    width = params.design.technique.hidden_size
    tuned = Params()
    assert params.pretrain.learning_rate == pytest.approx(
        tuned.pretrain.learning_rate * tuned.design.llama.hidden_size / width, rel=0.01
    )
    assert stages(leanlm().output) == stages(done.output)
    again = leanlm(*LIMITED, "--apply")
    assert "says so already" in again.output
    assert stages(again.output) == stages(done.output)


@pytest.mark.usefixtures("project")
def test_the_choice_is_told() -> None:
    """What was chosen, every limit and what it costs, the binding one, the front, the workers, and where the page is."""
    done = leanlm(*LIMITED, "--workers", "4")
    assert done.exit_code == 0, done.output
    for words in ("llama: ", "bits per byte", "--minutes 30", "--memory 512MB", "--tokens-per-second 30", "binding: "):
        assert words in done.output
    assert re.search(r"pretrain +DDP +[\d.]+ .B", done.output)
    assert "the link between workers isn't known" in done.output
    assert "work/plan.html" in done.output
    assert done.output.count("*  ") == 1
    elsewhere = leanlm(*LIMITED, "--workers", "4", "--on", "h100")
    assert "assumed: NVIDIA H100" in elsewhere.output
    assert "isn't known" not in elsewhere.output


def test_the_page_is_whole(project: Path) -> None:
    """The page is balanced HTML with three trades and three rooflines, and refers to nothing outside itself."""
    done = leanlm(*LIMITED, "-o", "out/page.html", "--workers", "2")
    assert done.exit_code == 0, done.output
    page = (project / "out" / "page.html").read_text(encoding="utf-8")
    found = parsed(page)
    assert len(set(found.ids)) == len(found.ids)
    assert all(reference[1:] in found.ids for reference in found.references if reference.startswith("#"))
    assert all(reference.startswith("#") for reference in found.references)
    assert "script" not in found.tags
    assert page.count("<svg") == 6
    for words in (
        "Predicted bits per byte against",
        "Roofline of training",
        "Roofline of prefill",
        "Roofline of decode",
    ):
        assert words in page
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert str(project) not in page
    assert not (project / "work" / "plan.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory", "512"], None),
        (["--memory", "lots"], "--memory: found 'lots'"),
        (["--hours", "-1"], "--hours: found '-1'"),
        (["--family", "lama"], "--family: 'lama' is no architecture family"),
        (["--minutes", "5", "--on", "h1000"], "unknown accelerator"),
        (["--minutes", "5", "--workers", "1"], "--workers: found 1"),
        (["--tokens-per-second", "1000000"], "impossible by itself"),
        (["--minutes", "5", "--bits-per-byte", "1"], "has been fitted to your text"),
    ],
)
def test_bad_input(project: Path, arguments: list[str], words: str | None) -> None:
    """A mistake is a sentence and exit code 2; params.yaml stays as it was, and no page is written."""
    before = (project / "params.yaml").read_text()
    done = leanlm("--family", "llama", *arguments, "--apply")
    assert done.exit_code == 2, done.output
    assert (words or "impossible") in done.output
    assert "Traceback" not in done.output
    assert (project / "params.yaml").read_text() == before
    assert not (project / "work" / "plan.html").exists()


def test_a_page_that_cannot_be_written(project: Path) -> None:
    """Where there is a file in place of the folder, the person is told, and nothing half written is left."""
    (project / "out").write_text("")
    done = leanlm(*LIMITED, "-o", "out/page.html")
    assert done.exit_code == 2
    assert "can't be written" in done.output


def test_options_are_constraints() -> None:
    """Every option becomes the limit it is named for; rates become times, and the context and families come along."""
    given: dict[str, object] = {name.option[2:].replace("-", "_"): "2" for name in planning.LIMITS}
    found = planning.constraints({**given, "context": "2k", "families": ("llama",)})
    assert [one.name for one in found.limits] == [asked.option for asked in planning.LIMITS]
    assert {one.name: one.most for one in found.limits} | {"--flops": 2} == {
        "--flops": 2, "--hours": 7200, "--minutes": 120, "--joules": 2, "--dollars": 2, "--training-memory": 2,
        "--memory": 2, "--model-bytes": 2, "--tokens-per-second": 0.5, "--latency": 2, "--bits-per-byte": 2,
    }  # fmt: skip
    assert (found.context, found.families) == (2000, ("llama",))
    with pytest.raises(UserError, match="--context"):
        planning.constraints({"context": "many"})
