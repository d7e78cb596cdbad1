"""What would run and why: real DVC on a toy project."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from flows import status
from flows.status import Reason
from tasks.core.errors import UserError
from tasks.params import STAGES
from tests import toy


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project in which every stage has run."""
    folder = toy.make(tmp_path_factory.mktemp("finished") / "toy")
    toy.reproduce(folder)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, with this process inside."""
    folder = tmp_path / "toy"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def test_nothing_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first run every stage is new, after the raw input that makes the first one's source."""
    monkeypatch.chdir(toy.make(tmp_path / "toy"))
    found = status.stale()
    assert list(found) == ["data/dvc.yaml:stdlib", *STAGES]
    assert all(found[stage][0] == Reason("new", stage) for stage in STAGES)
    status.refuse_missing(found)


def test_what_waits_to_go_on_is_named_with_its_size(project: Path) -> None:
    """Largest first; a folder without anything worth mentioning is left out."""
    for key, size in (("small", 10), ("some", 2 << 20), ("most", 3 << 20)):
        place = project / "work" / "pretrain" / key / "checkpoint-00000001"
        place.mkdir(parents=True)
        (place / "weights.safetensors").write_bytes(bytes(size))
    first, head, *lines = toy.leanlm(project, "status").stdout.splitlines()
    assert (first, lines) == (
        "everything is up to date",
        ["  work/pretrain/most  3.15 MB", "  work/pretrain/some  2.10 MB"],
    )
    assert "may be deleted" in head


def test_up_to_date(project: Path) -> None:
    """After `dvc repro` there is nothing to do, and raw inputs that nothing names don't count."""
    assert status.stale() == {}
    assert toy.leanlm(project, "status").stdout == "everything is up to date\n"


def test_a_parameter_shows_its_old_and_new_value(project: Path) -> None:
    """A changed parameter names both values; later stages follow, and say whom."""
    toy.set_params(project, {"finetune.lora.r": 16})
    found = status.stale()
    assert list(found) == ["finetune", "compress", "deploy_profile"]
    assert found["finetune"] == [Reason("parameter", "finetune.lora.r", "modified", 8, 16)]
    assert found["compress"] == [Reason("upstream", "finetune")]
    shown = toy.leanlm(project, "status").stdout
    assert "finetune.lora.r: 8 -> 16" in shown
    document = json.loads(toy.leanlm(project, "status", "--json").stdout)
    assert document["finetune"][0] == {
        "kind": "parameter", "name": "finetune.lora.r", "change": "modified", "before": 8, "after": 16
    }  # fmt: skip


def test_another_technique(project: Path) -> None:
    """Choosing another technique shows the choice and the block that becomes a dependency."""
    toy.set_params(project, {"compress.method": "magnitude"})
    reasons = status.stale()["compress"]
    assert Reason("parameter", "compress.method", "modified", "int8", "magnitude") in reasons
    assert any(reason.name == "compress.magnitude.sparsity" and reason.before is None for reason in reasons)


def test_an_unchosen_technique_changes_nothing(project: Path) -> None:
    """A value of a technique that isn't chosen makes nothing stale."""
    toy.set_params(project, {"compress.magnitude.sparsity": 0.9})
    assert status.stale() == {}


def test_deleted_output(project: Path) -> None:
    """A missing output is told as one, not as a missing input of the next stage."""
    shutil.rmtree(project / "artifacts" / "finetune")
    found = status.stale()
    assert found["finetune"] == [Reason("output", "artifacts/finetune", "deleted")]
    assert found["compress"] == [Reason("upstream", "finetune")]


def test_an_input_that_dvc_tracks(project: Path) -> None:
    """An input under `dvc add` that is missing is named with its command, and the stages that read it follow."""
    (project / "data" / "own").mkdir()
    (project / "data" / "own" / "text.txt").write_text("a text")
    toy.shell([sys.executable, "-m", "dvc", "add", "--quiet", "data/own"], project)
    toy.set_params(project, {"data.source": "data/own"})
    toy.reproduce(project)
    assert status.stale() == {}
    shutil.rmtree(project / "data" / "own")
    found = status.stale()
    assert found["data/own.dvc"] == [Reason("output", "data/own", "deleted")]
    assert found["data"] == [Reason("upstream", "data/own.dvc")]
    with pytest.raises(UserError, match=r"data/own: not found(.|\n)*dvc checkout data/own\.dvc"):
        status.refuse_missing(found)


def test_changed_code(project: Path) -> None:
    """A changed file is named in every stage that depends on it."""
    (project / "toy.py").write_text((project / "toy.py").read_text() + "\n")
    found = status.stale()
    assert all(Reason("input", "toy.py", "modified") in found[stage] for stage in STAGES)


def test_a_missing_source_is_refused(project: Path) -> None:
    """An input that no stage makes is refused with the parameter that names it."""
    toy.set_params(project, {"data.source": "somewhere/else"})
    with pytest.raises(UserError, match=r"somewhere/else: not found, and data reads it\n.*data\.source"):
        status.refuse_missing(status.stale())


def test_a_broken_graph_is_told_in_words(project: Path) -> None:
    """A dvc.yaml that DVC refuses: its words, exit code 2, no traceback."""
    (project / "dvc.yaml").write_text("stages: {data: {cmd: [}")
    done = toy.leanlm(project, "status")
    assert done.returncode == 2
    assert "dvc.yaml" in done.stderr
    assert "Traceback" not in done.stderr
