"""Two doors, one truth: the flow and `dvc repro`, in any order, really run. One workspace walks through every scenario."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.params import STAGES
from tests.conftest import Workspace, build

pytestmark = pytest.mark.slow
FRUGAL = {"deploy_profile.engines": ["llama_cpp"], "deploy_profile.gguf": ["Q8_0"], "compress.method": "magnitude"}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace after its first flow."""
    space = build(tmp_path_factory.mktemp("doors"))
    space.set(FRUGAL)
    ran(space)
    yield space
    space.leanlm("down")


def ran(space: Workspace, *arguments: str) -> list[str]:
    """Run the flow; returns the stages that computed, and checks that every other says Cached."""
    output = space.leanlm("run", *arguments)
    states = dict(re.findall(r"^\W*(\w+)\s+(Completed|Cached)\b", output.stdout, re.MULTILINE))
    assert set(states) >= set(STAGES), output.stdout + output.stderr
    return [stage for stage in STAGES if states[stage] == "Completed"]


def by_hand(space: Workspace) -> list[str]:
    """Run `dvc repro`; returns the stages that computed, told by their reports."""
    before = stamps(space)
    space.run("dvc", "repro")
    return [stage for stage, stamp in stamps(space).items() if before.get(stage) != stamp]


def stamps(space: Workspace) -> dict[str, int]:
    """Stage -> when its report was last written anew (restoring keeps the content, so content tells)."""
    found = {}
    for stage in STAGES:
        path = space.root / "reports" / f"{stage}.json"
        if path.exists():
            report = json.loads(path.read_text())
            found[stage] = hash((report["invocation"], report["finished"], report["key"]))
    return found


def model_bytes(space: Workspace) -> bytes:
    """The fine-tuned model."""
    return (space.root / "artifacts" / "finetune" / "model.safetensors").read_bytes()


def rank(space: Workspace) -> int:
    """r of the adapter on disk."""
    path = space.root / "artifacts" / "finetune" / "adapter" / "adapter_config.json"
    return int(json.loads(path.read_text())["r"])


def clean(space: Workspace) -> bool:
    """Whether DVC finds nothing to do."""
    return not json.loads(space.run("dvc", "status", "--json").stdout)


def test_flow_then_dvc_is_clean(doors: Workspace) -> None:
    """After the flow, `dvc status` is clean and `dvc repro` runs nothing; a second flow computes nothing."""
    assert clean(doors)
    assert by_hand(doors) == []
    assert ran(doors) == []


def test_r_8_16_8_gives_back_the_bytes_of_8(doors: Workspace) -> None:
    """r = 8, 16, 8: the third run computes nothing, and the bytes on disk are those of r = 8."""
    eight = model_bytes(doors)
    assert ran(doors, "-S", "finetune.lora.r=16") == ["finetune", "compress", "deploy_profile"]
    doors.params["finetune"]["lora"]["r"] = 16
    assert rank(doors) == 16
    assert model_bytes(doors) != eight
    doors.set({"finetune.lora.r": 8})
    assert ran(doors) == []
    assert rank(doors) == 8
    assert model_bytes(doors) == eight
    assert clean(doors)


def test_dvc_then_flow_is_cached(doors: Workspace) -> None:
    """What `dvc repro` computed, the flow finds Cached; MLflow gets it all the same."""
    doors.set({"finetune.lora.r": 4})
    assert by_hand(doors) == ["finetune", "compress", "deploy_profile"]
    assert ran(doors) == []
    doors.set({"finetune.lora.r": 8})
    assert ran(doors) == []


def test_an_unchosen_technique_changes_nothing(doors: Workspace) -> None:
    """Editing the values or the code of a technique that isn't chosen runs nothing."""
    doors.set({"compress.int8.llm_int8_threshold": 5.0})
    path = doors.root / "tasks" / "finetune" / "full.py"
    path.write_text(path.read_text() + "\n# edited\n")
    assert ran(doors) == []


def test_an_edited_helper_runs_its_stages(doors: Workspace) -> None:
    """Editing a module that a stage imports runs that stage; those below run only if its bytes changed."""
    path = doors.root / "tasks" / "finetune" / "chats.py"
    text = path.read_text()
    path.write_text(text + "\n# edited\n")
    assert ran(doors) == ["finetune"]
    path.write_text(text)
    assert ran(doors) == []


def test_deleted_artifacts_come_back(doors: Workspace) -> None:
    """Artifacts deleted: restored from the cache, nothing computed."""
    kept = model_bytes(doors)
    shutil.rmtree(doors.root / "artifacts")
    assert ran(doors) == []
    assert model_bytes(doors) == kept


def test_a_corrupted_artifact_is_found(doors: Workspace) -> None:
    """An artifact with other bytes is noticed, and the right ones come back."""
    kept = model_bytes(doors)
    path = doors.root / "artifacts" / "finetune" / "model.safetensors"
    path.unlink()
    path.write_bytes(kept[:-64] + bytes(64))
    ran(doors)
    assert model_bytes(doors) == kept


def test_databases_deleted_nothing_computed(doors: Workspace) -> None:
    """Without Prefect's and MLflow's databases nothing is computed, and the ledger is published again."""
    doors.leanlm("down")
    shutil.rmtree(doors.root / "work" / "prefect")
    (doors.root / "mlruns" / "mlflow.db").unlink()
    assert ran(doors) == []
    assert published(doors) == set(STAGES)


def published(space: Workspace) -> set[str]:
    """The stages of the finished child runs in MLflow."""
    import sqlite3
    from contextlib import closing

    query = "SELECT name FROM runs WHERE status = 'FINISHED'"
    with closing(sqlite3.connect(space.root / "mlruns" / "mlflow.db")) as database:
        return {name for (name,) in database.execute(query)} & set(STAGES)


def test_other_bytes_under_the_same_name_run(doors: Workspace) -> None:
    """An input's bytes change under the same name: what depends on it runs."""
    path = sorted((doors.root / "data" / "small").rglob("*.py"))[0]
    path.write_text(path.read_text() + "\nADDED = 'a line that was not there'\n")
    assert ran(doors)[0] == "data"
    assert clean(doors)


def test_a_failing_stage_stops_the_chain(doors: Workspace) -> None:
    """A stage that fails: its words, its exit code, no traceback, nothing after it runs; put right, all is as before."""
    doors.set({"finetune.context_length": 2})
    failed = doors.leanlm("run", check=False)
    assert failed.returncode == 2
    assert "finetune.context_length" in failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert not (doors.root / "artifacts" / "finetune").exists()
    doors.set({"finetune.context_length": 384})
    assert ran(doors) == []


def test_the_ledger_is_complete(doors: Workspace, tmp_path: Path) -> None:
    """Every stage's report has time, memory, energy, money; the report page is written and names every stage."""
    for stage in STAGES:
        report = json.loads((doors.root / "reports" / f"{stage}.json").read_text())
        for name in ("wall_seconds", "cpu_seconds", "peak_memory_bytes", "energy_joules", "dollars", "attempts"):
            assert report["metrics"][name]["value"] > 0, (stage, name)
            assert report["metrics"][name]["method"]
    page = tmp_path / "report.html"
    doors.leanlm("report", "--output", str(page))
    assert all(stage in page.read_text() for stage in STAGES)
