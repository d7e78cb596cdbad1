"""MLflow is a view: the ledger appears there once, and nothing is lost with it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flows import lineage, track
from flows.runs import VERSION
from tasks.core.files import read_yaml
from tests.toy_ledger import STAGES, client, copy, dvc, python, run_of, runs, steps, turn


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy project of the test's own as the working directory."""
    monkeypatch.chdir(copy(tmp_path_factory, tmp_path))
    monkeypatch.setattr(track, "PERIOD", 0.05)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been published once; only looked at."""
    folder = copy(tmp_path_factory, tmp_path_factory.mktemp("published"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert track.publish(strict=True) == len(STAGES)
    return folder


@pytest.fixture
def seen(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published project as the working directory."""
    monkeypatch.chdir(published)


@pytest.mark.usefixtures("seen")
def test_one_parent_with_a_child_per_stage() -> None:
    """The parent links its children, and carries what is needed to compare two lifecycles."""
    (parent,) = runs("lifecycle")
    children = {run.data.tags["leanlm.stage"]: run for run in runs()}
    assert sorted(children) == sorted(STAGES)
    for stage, child in children.items():
        assert parent.data.tags[f"leanlm.stage.{stage}"] == child.info.run_id
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == parent.info.status == "FINISHED"
        assert parent.data.metrics[f"{stage}.bits_per_byte"] == 2.25
    assert parent.data.params["pretrain.steps"] == "4"
    assert parent.data.params["deploy_profile.serve"] == "Q8_0"
    assert parent.data.metrics["deploy_profile.model_bytes/Q8_0"] == 7


@pytest.mark.usefixtures("seen")
def test_a_child_carries_the_lock_and_the_report() -> None:
    """Parameters are dvc.lock's, figures the report's at today's prices, tags lead back to bytes and method."""
    run = run_of("pretrain")
    entry = read_yaml(Path("dvc.lock"))["stages"]["pretrain"]
    assert run.data.params["pretrain.schedule.shape"] == "cosine"
    assert json.loads(run.data.params["pretrain.optimizer.adamw.beta2"]) == 0.95
    assert run.data.metrics["model_bytes/Q8_0"] == 4
    assert run.data.metrics["predicted.wall_seconds"] == 2.0
    assert run.data.metrics["ratio.wall_seconds"] == 2.5 / 2.0
    assert not any(name.startswith("ratio.") and "bits" in name for name in run.data.metrics), "never predicted"
    assert run.data.metrics["energy_joules"] == 4.0 * 8.0
    md5 = next(out["md5"] for out in entry["outs"] if out["path"] == "artifacts/pretrain")
    expected = {
        "dvc.out.md5": md5,
        "leanlm.invocation": "run-1",
        "machine.cpu.cores": "2",
        "version.torch": "2.13.0",
        "method.wall_seconds": "measured",
        "method.energy_joules": "modelled",
        "note.predicted.wall_seconds": "rate x size",
    }
    assert expected.items() <= run.data.tags.items()
    assert run.info.end_time - run.info.start_time == 2500
    assert [file.path for file in client().list_artifacts(run.info.run_id)] == ["pretrain.json"]


@pytest.mark.usefixtures("seen")
def test_a_missing_figure_is_a_reason_and_no_number() -> None:
    """A null is never logged as a metric."""
    run = run_of("pretrain")
    assert "peak_device_memory_bytes" not in run.data.metrics
    assert run.data.tags["missing.peak_device_memory_bytes"] == "no accelerator"
    assert "method.peak_device_memory_bytes" not in run.data.tags


@pytest.mark.usefixtures("seen")
def test_the_curve_has_its_steps_and_ends_in_the_final_figure() -> None:
    """Empty cells are skipped; a metric that is a curve and a figure ends as the figure."""
    run = run_of("pretrain")
    assert steps(run) == [0, 1, 2, 3]
    assert steps(run, "validation_loss") == [1, 3]
    assert run.data.metrics["tokens_per_second"] == 123.0


@pytest.mark.usefixtures("seen")
def test_the_model_is_registered_once_with_its_bytes() -> None:
    """The version's source holds the served file, which DVC can't overwrite, and says what it is."""
    (version,) = client().search_model_versions("name = 'leanlm'")
    run = run_of("deploy_profile")
    assert (version.run_id, run.data.tags[VERSION]) == (run.info.run_id, str(version.version))
    assert version.tags["bytes"] == "7"
    assert version.tags["bits_per_byte"] == "2.25"
    from mlflow.artifacts import download_artifacts

    source = Path(download_artifacts(version.source, tracking_uri=track.tracking_uri()))
    assert (source / "deploy_profile-Q8_0.gguf").read_bytes() == bytes(7)
    assert source.is_relative_to(Path("mlruns/artifacts").resolve())
    assert version.tags["md5"] == "d310a40483f9399dd7ed1712e0fdd702"


@pytest.mark.usefixtures("seen")
def test_nothing_to_do_is_quick_and_light() -> None:
    """A second publish, and following a stage without history, neither import mlflow nor take 50 ms."""
    process = python(
        """
        import sys, time
        from flows import track
        def timed():
            began = time.perf_counter()
            assert track.publish(strict=True) == 0
            return time.perf_counter() - began
        seconds = min(timed() for _ in range(5))
        with track.follow("compress"):
            pass
        assert seconds < 0.05, seconds
        assert "mlflow" not in sys.modules and "torch" not in sys.modules
        """
    )
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert (len(runs("lifecycle")), len(runs())) == (1, 3)


@pytest.mark.usefixtures("project")
def test_four_processes_on_a_fresh_database() -> None:
    """MLflow's own migrations race; under the lock nobody crashes and each stage is there once."""
    Path("mlruns/mlflow.db").unlink()
    processes = [python("from flows.track import publish; print(publish(strict=True))") for _ in range(4)]
    answers = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, answers
    assert sorted(int(out) for out, _ in answers) == [0, 0, 0, 3]
    assert (len(runs("lifecycle")), len(runs())) == (1, 3)
    assert len(client().search_model_versions("name = 'leanlm'")) == 1


@pytest.mark.usefixtures("project")
def test_a_deleted_database_loses_nothing() -> None:
    """Everything is published again, also by the process that knew the old database."""
    assert track.publish(strict=True) == 3
    Path("mlruns/mlflow.db").unlink()
    assert track.publish(strict=True) == 3
    assert (len(runs("lifecycle")), len(runs())) == (1, 3)
    assert len(client().search_model_versions("name = 'leanlm'")) == 1


@pytest.mark.usefixtures("project")
def test_a_changed_stage_is_one_new_child() -> None:
    """A new lifecycle has a parent of its own that links the stages it shares; half of one grows and isn't doubled."""
    assert track.publish(strict=True) == 3
    (first,) = runs("lifecycle")
    turn("steps: 4", "steps: 6")
    dvc("repro", "-q", "--single-item", "pretrain")
    assert track.publish(strict=True) == 1
    (half,) = [run for run in runs("lifecycle") if run.info.run_id != first.info.run_id]
    assert half.data.tags["leanlm.stage.data"] == first.data.tags["leanlm.stage.data"]
    assert half.data.tags["leanlm.stage.pretrain"] != first.data.tags["leanlm.stage.pretrain"]
    assert "leanlm.stage.deploy_profile" not in half.data.tags
    dvc("repro", "-q")
    assert track.publish(strict=True) == 1
    assert {run.info.run_id for run in runs("lifecycle")} == {first.info.run_id, half.info.run_id}
    grown = client().get_run(half.info.run_id)
    assert {f"leanlm.stage.{stage}" for stage in STAGES} <= grown.data.tags.keys()
    assert grown.data.params["pretrain.steps"] == "6"
    (version,) = client().search_model_versions("name = 'leanlm'")
    assert client().get_run(grown.data.tags["leanlm.stage.deploy_profile"]).data.tags[VERSION] == str(version.version)
    assert track.publish(strict=True) == 0


@pytest.mark.usefixtures("project")
def test_only_what_dvc_recorded_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    """A report that was edited, and a served file that isn't the one recorded, are left out, and this is said."""
    report = Path("reports/data.json")
    report.write_text(report.read_text().replace("2.25", "1.25"))
    Path("artifacts/deploy_profile/deploy_profile-Q8_0.gguf").write_bytes(b"other")
    assert track.publish(strict=True) == 2
    said = capsys.readouterr().err
    assert "reports/data.json is not the one that dvc.lock records" in said
    assert "deploy_profile-Q8_0.gguf: not registered" in said
    assert "data" not in {run.data.tags["leanlm.stage"] for run in runs()}
    assert not client().search_model_versions("name = 'leanlm'")


@pytest.mark.usefixtures("project")
def test_stages_of_different_parameters_are_no_lifecycle() -> None:
    """A stage below one that ran with another seed waits for its own turn, even where its inputs are the same bytes."""
    turn("seed: 0", "seed: 1")
    dvc("repro", "-q", "--single-item", "pretrain")
    stages, remarks = lineage.lifecycle()
    assert [stage.name for stage in stages] == ["data", "pretrain"]
    assert remarks == [
        "deploy_profile: not published: it was made with seed = 0, the stages before it with 1"
        " (`dvc repro deploy_profile` settles it)"
    ]


@pytest.mark.usefixtures("project")
def test_the_commit_is_named_with_whether_code_differs() -> None:
    """DVC's own record of the run doesn't make a checkout dirty; an edited file does; outside git nothing is said."""
    assert lineage.commit() == {}
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (["init", "-q"], ["add", "toy.py", "dvc.lock", "reports"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    Path("dvc.lock").write_text("schema: '2.0'\n")
    clean = lineage.commit()
    assert len(clean["git.commit"]) == 40
    assert clean["git.dirty"] == "false"
    Path("toy.py").write_text("")
    assert lineage.commit() == {**clean, "git.dirty": "true"}
