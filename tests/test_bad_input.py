"""What users get wrong, and what machines do to them: a sentence, an exit code, nothing lost."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Workspace

pytestmark = pytest.mark.slow
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1


@pytest.fixture
def space(finished: Workspace, tmp_path: Path) -> Workspace:
    """A finished workspace of one's own."""
    copy = Workspace(tmp_path / "copy")
    shutil.copytree(finished.root, copy.root, symlinks=True)
    copy.params = finished.params
    return copy


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Exit code, the words on stderr, no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def stage(space: Workspace, name: str, before: Callable[[], object] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a stage, `before` in its process."""
    return subprocess.run(
        ["python", "-m", "tasks", name],
        cwd=space.root,
        env=space.env,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=before,
    )


def kept(space: Workspace, name: str) -> bytes:
    """The weights a stage left."""
    return (space.root / "artifacts" / name / "model.safetensors").read_bytes()


def test_rank_zero(space: Workspace) -> None:
    """r = 0 is refused by name, and params.yaml stays as it was."""
    before = (space.root / "params.yaml").read_text()
    refused(space.leanlm("run", "-S", "finetune.lora.r=0", check=False), 2, "finetune.lora.r", "greater than 0")
    assert (space.root / "params.yaml").read_text() == before


def test_unknown_parameter_and_technique(space: Workspace) -> None:
    """A misspelt name is told what it may have meant; an unknown technique which there are."""
    refused(space.leanlm("run", "-S", "finetune.lora.rr=4", check=False), 2, "finetune.lora.rr", "finetune.lora.r")
    refused(space.leanlm("run", "-S", "finetune.method=lorra", check=False), 2, "lorra", "lora, ")


def test_edited_by_hand_wrongly(space: Workspace) -> None:
    """A wrong type in params.yaml: path and value, from the stage itself as well."""
    path = space.root / "params.yaml"
    path.write_text(path.read_text().replace("batch_size: 2 ", "batch_size: many "))
    refused(space.stage("finetune", check=False), 2, "finetune.batch_size", "'many'")


def test_missing_source(space: Workspace) -> None:
    """A data folder that isn't there is named."""
    done = space.leanlm("run", "-S", "data.source=data/nowhere", check=False)
    space.leanlm("down")
    refused(done, 2, "data.source", "data/nowhere")


def test_loss_that_is_not_a_number(space: Workspace) -> None:
    """An absurd learning rate diverges: exit code 4, the step is named, what was there before stays."""
    space.set({"pretrain.learning_rate": 1e30})
    before = kept(space, "pretrain")
    refused(space.stage("pretrain", check=False), 4, "not a number", "pretrain.learning_rate")
    assert kept(space, "pretrain") == before


def test_disk_full(space: Workspace) -> None:
    """No room for the weights: said so, and the old output and report are untouched."""
    space.set({"seed": 1})
    before, report = kept(space, "pretrain"), (space.root / "reports" / "pretrain.json").read_bytes()

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    refused(stage(space, "pretrain", limit), 2, "pretrain", "file size limit", "make room")
    assert kept(space, "pretrain") == before
    assert (space.root / "reports" / "pretrain.json").read_bytes() == report


def test_no_permission(space: Workspace) -> None:
    """A folder that can't be written to is named, to root without its privileges as to anybody."""
    space.set({"seed": 1})
    shutil.rmtree(space.root / "work" / "design", ignore_errors=True)
    (space.root / "artifacts").chmod(0o555)

    def unprivileged() -> None:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)

    done = stage(space, "design", unprivileged)
    (space.root / "artifacts").chmod(0o755)
    refused(done, 2, "artifacts/design", "permission denied")
    assert (space.root / "artifacts" / "design" / "blueprint.json").exists()


def test_corrupted_artifact(space: Workspace) -> None:
    """Weights cut short are named; DVC then brings the right ones back."""
    path = space.root / "artifacts" / "finetune" / "model.safetensors"
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(good[:1000])
    refused(space.stage("compress", check=False), 2, "artifacts/finetune")
    space.run("dvc", "repro", "finetune")
    assert path.read_bytes() == good


def test_model_too_large_for_memory(space: Workspace) -> None:
    """A model that can't fit is refused before anything is allocated, with what would make it fit."""
    space.set(
        {
            "design.llama.hidden_size": 16384,
            "design.llama.intermediate_size": 65536,
            "design.llama.num_hidden_layers": 96,
            "design.llama.num_attention_heads": 128,
        }
    )
    refused(space.stage("pretrain", check=False), 2, "of memory", "lower pretrain.batch_size")


def test_no_network(space: Workspace) -> None:
    """A data set of the hub without a network: named, with a way out; no half-made input stays."""
    space.set({"data.source": "data/wikitext.yaml"})
    refused(space.stage("data", check=False), 2, "data set 'Salesforce/wikitext'", "local folder")
    assert not list((space.root / "work").glob("raw/*"))


def test_budget_refuses_then_lets_go_on(space: Workspace) -> None:
    """A budget below the prediction is refused with code 3; raised, the stage runs."""
    space.set({"seed": 1, "budget.flops": 1e6})
    before = kept(space, "pretrain")
    refused(space.stage("pretrain", check=False), 3, "budget.flops", "raise budget.flops")
    assert kept(space, "pretrain") == before
    space.set({"budget.flops": 1e15})
    space.stage("pretrain")
    assert kept(space, "pretrain") != before


def test_damaged_report(space: Workspace) -> None:
    """A report that isn't JSON is named with the command that mends it."""
    (space.root / "reports" / "design.json").write_text("{")
    refused(space.leanlm("report", check=False), 2, "reports/design.json", "dvc repro -f design")


def test_reports_are_the_users_own(finished: Workspace) -> None:
    """No report holds a path, a host or a user of this machine."""
    import getpass
    import platform

    for path in (finished.root / "reports").glob("*.json"):
        text = path.read_text()
        assert json.loads(text)["machine"]
        assert str(finished.root) not in text
        for secret in (platform.node(), getpass.getuser()):
            assert f'"{secret}"' not in text
