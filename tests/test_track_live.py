"""Live curves end in the run of the finished stage, whatever happens on the way."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from flows import history, track
from tasks.core.errors import UserError
from tasks.core.job import Job
from tests.toy_ledger import Training, copy, open_runs, python, run_of, runs, steps, until


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy project of the test's own as the working directory."""
    monkeypatch.chdir(copy(tmp_path_factory, tmp_path))
    monkeypatch.setattr(track, "PERIOD", 0.05)


@pytest.mark.usefixtures("project")
def test_a_live_run_becomes_the_stage_s_run() -> None:
    """Rows appear while the stage runs; publishing completes that run, sending only what is missing."""
    training = Training("pretrain", "k4")
    with track.follow("pretrain"):
        training.write(0, 1)
        until(lambda: bool(open_runs()))
        (live,) = runs()
        assert (live.info.status, live.data.tags["leanlm.live"]) == ("RUNNING", "k4")
        training.path.rename("moved.csv")
    assert track.publish(strict=True) == 3
    run = run_of("pretrain")
    assert (run.info.run_id, run.info.status) == (live.info.run_id, "FINISHED")
    assert steps(run) == [0, 1, 2, 3]
    assert run.data.metrics["bits_per_byte"] == 2.25


@pytest.mark.usefixtures("project")
def test_a_killed_attempt_goes_on_in_its_run() -> None:
    """After kill -9 the next attempt of the same key goes on in the same run, beyond the last step it had."""
    training = Training("pretrain", "k4")
    process = python("""
        import time
        from flows import track
        with track.follow("pretrain"):
            print("following", flush=True)
            time.sleep(60)
    """)
    assert process.stdout is not None
    assert process.stdout.readline() == "following\n"
    training.write(0, 1, 2)
    until(lambda: bool(open_runs()))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with track.follow("pretrain"):
        training.path.unlink()
        training.write(0, 1)  # rewound to a checkpoint
        training.write(2, 3, pace=0.05)
        until(lambda: steps(runs()[0])[-1] == 3)
    (run,) = runs()
    assert (run.info.status, steps(run)) == ("RUNNING", [0, 1, 2, 3])


@pytest.mark.usefixtures("project")
def test_a_failed_stage_leaves_a_failed_run() -> None:
    """The stage's own error passes through; the next attempt of the same key goes on in the same run."""
    training = Training("pretrain", "k4")
    with pytest.raises(UserError, match="diverged"), track.follow("pretrain"):  # noqa: PT012
        training.write(0)
        raise UserError("diverged")
    (failed,) = runs()
    assert (failed.info.status, steps(failed)) == ("FAILED", [0])
    with track.follow("pretrain"):
        training.write(1)
        until(lambda: steps(runs()[0]) == [0, 1])
    (run,) = runs()
    assert (run.info.run_id, run.info.status) == (failed.info.run_id, "RUNNING")


@pytest.mark.usefixtures("project")
def test_trouble_with_mlflow_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged database stops neither publishing nor following; asked strictly, it is the user's error to see."""
    Path("mlruns/mlflow.db").write_bytes(b"not a database" * 100)
    with track.follow("pretrain"):
        Training("pretrain", "k4").write(0)
    assert track.publish() == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("track: ")]
    assert len(said) == 2
    assert "no live curve" in said[0]
    assert "`leanlm track` tries again" in said[1]
    with pytest.raises(UserError, match="not a database"):
        track.publish(strict=True)


def test_a_tail_gives_each_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old files are left alone, half-written rows wait, a rewound file starts again, a moved one is read to its end."""
    monkeypatch.chdir(tmp_path)
    Training("finetune", "old").write(7)
    tail, training = history.Tail("finetune"), Training("finetune", "new")
    assert tail.rows() == []
    training.write(0, 1)
    with training.path.open("a") as file:
        file.write("2,0.5,")
    assert [row["step"] for row in tail.rows()] == [0, 1]
    assert tail.key == "new"
    with training.path.open("a") as file:
        file.write("0.001,1,100,1,\n")
    assert [(row["step"], "validation_loss" in row) for row in tail.rows()] == [(2, False)]
    job = Job("finetune", training.path.parent)
    job.rewind(1)  # a new file under the same name
    assert [row["step"] for row in tail.rows()] == [0]
    training.write(1)
    assert [row["step"] for row in tail.rows()] == [1]
    training.path.write_text("step,loss\n0,5.0\n")
    assert tail.rows() == [{"step": 0.0, "loss": 5.0}]
    with training.path.open("a") as file:
        file.write("1,4.0\n")
    training.path.rename("moved.csv")
    assert tail.rows() == [{"step": 1.0, "loss": 4.0}]
    tail.close()
