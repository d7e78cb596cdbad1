"""Comparisons that really run: nothing of the project is touched, nothing known is computed again."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import toy
from tests.conftest import Workspace, build, keep_machine

NOWHERE = "lora:target_modules=[nowhere]"

FLAWED = """
def figures(declared):
    chosen = declared["finetune"]["method"] if "finetune" in declared else ""
    asked = os.environ.get("TOY_methods", "")
    if chosen and chosen in asked:
        if "kill" in asked:
            Path("reached").touch()
            time.sleep(600)
        Path("work", stage).mkdir(parents=True, exist_ok=True)
        Path("work", stage, "error.txt").write_text(f"{stage}: out of memory")
        sys.exit(2)
    size = len(chosen) or 1
    def figure(value, unit): return {"value": value, "unit": unit, "method": "counted"}
    return {"validation_loss": figure(1 / size, "nat/token"), "trainable_parameters": figure(size, "")}
"""
"""The toy's figures, and a method that fails or hangs when the environment says so."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy project in which nothing has run."""
    made = toy.make(tmp_path_factory.mktemp("compared") / "toy")
    stage = toy.STAGE.replace('"metrics": {"parameters": counted}', '"metrics": figures(declared)')
    head, mark, tail = stage.partition("stage = sys.argv[1]\n")
    (made / "toy.py").write_text(head + mark + FLAWED + tail)
    keep_machine(made)
    return made


def state(project: Path) -> dict[str, bytes]:
    """Everything a comparison must leave alone."""
    kept = [
        project / "params.yaml",
        project / "dvc.yaml",
        *(project / "artifacts").rglob("*"),
        *(project / "reports").glob("*.json"),
    ]
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in kept
        if path.is_file() and "compare" not in path.name
    }


def compare(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`leanlm compare finetune ...`."""
    return toy.leanlm(project, "compare", "finetune", *arguments, **environment)


def counts(done: subprocess.CompletedProcess[str]) -> tuple[int, int, int]:
    """How many were computed, known, and without figures."""
    found = re.search(r"(\d+) computed, (\d+) known already, (\d+) without figures", done.stdout)
    assert found, done.stdout + done.stderr
    return int(found[1]), int(found[2]), int(found[3])


def kill_at_full(project: Path) -> dict[str, bytes]:
    """Kill a comparison whose second point is at work; the project as it then is. Meanwhile no other one may begin."""
    killed = subprocess.Popen(
        [sys.executable, "-m", "flows", "compare", "finetune", "--methods", f"lora,full,{NOWHERE}"],
        cwd=project, env={**toy.ENVIRONMENT, "TOY_methods": "full kill"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    awaited = project / "work" / "compare" / "finetune" / "reached"
    try:
        until(awaited.exists, killed)
        shared = state(project)
        assert {"artifacts/data/out.json", "artifacts/pretrain/out.json"} <= shared.keys()
        assert "artifacts/finetune/out.json" not in shared
        refused = compare(project, "--methods", "lora")
        assert "another run is going on" in refused.stderr
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        if killed.stdout:
            killed.stdout.close()
    return shared


@pytest.mark.slow
def test_a_comparison_from_first_to_last(project: Path) -> None:
    """Failed, killed, gone on, known; the project is as it was, and `leanlm run` finds what was computed."""
    wrong = compare(project, "--methods", "lorra")
    assert wrong.returncode == 2
    assert not (project / "artifacts").exists()
    shared = kill_at_full(project)

    failing = compare(project, "--methods", f"lora,full,{NOWHERE}", TOY_methods="full")
    assert failing.returncode == 0, failing.stderr
    assert counts(failing) == (0, 1, 2)
    assert "full: failed: out of memory" in failing.stdout
    assert re.search(r"lora:target_modules=\[nowhere\]: refused: .*nowhere", failing.stdout)
    assert state(project) == shared

    whole = compare(project, "--methods", f"lora,full,{NOWHERE}")
    assert counts(whole) == (1, 1, 1)
    again = compare(project, "--methods", f"lora,full,{NOWHERE}", "--out", "elsewhere/page.html")
    assert counts(again) == (0, 2, 1)
    assert state(project) == shared
    for name in ("page.html", "page.md", "page.csv", "page.json"):
        assert (project / "elsewhere" / name).read_bytes() == (
            project / "reports" / name.replace("page", "compare-finetune")
        ).read_bytes()
    kept = json.loads((project / "reports" / "compare" / "finetune" / "full.json").read_text())
    assert kept["state"] == "done"
    assert kept["report"]["metrics"]["validation_loss"]["value"] == 0.25

    toy.set_params(project, {"finetune.method": "full"})
    toy.reproduce(project)
    assert toy.report(project, "finetune")["invocation"] == kept["report"]["invocation"]  # restored, not computed

    lost = compare(project, "--methods", NOWHERE)
    assert lost.returncode == 2
    assert "no contender ended well" in lost.stderr


def until(happened: Any, process: subprocess.Popen[bytes]) -> None:
    """Wait for something a process does."""
    deadline = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with the smoke preset in which nothing has run."""
    return build(tmp_path_factory.mktemp("real"))


@pytest.mark.slow
def test_equal_flops_are_counted_equal(real: Workspace) -> None:
    """Two real methods with equal predicted FLOPs: the counted ones agree within 2 %; the second time nothing is computed."""
    arguments = ("compare", "finetune", "--methods", "lora,full", "--equal", "flops", "-S", "finetune.steps=60")
    assert counts(real.leanlm(*arguments)) == (2, 0, 0)
    points = json.loads((real.root / "reports" / "compare-finetune.json").read_text())["points"]
    figures = {one["point"]: {name: entry["value"] for name, entry in one["metrics"].items()} for one in points}
    assert figures["full"]["flops"] == pytest.approx(figures["lora"]["flops"], rel=0.02)
    assert figures["lora"]["trainable_parameters"] < figures["full"]["trainable_parameters"]
    assert figures["lora"]["adapter_bytes"] == figures["lora"]["delivery_bytes"] < figures["full"]["delivery_bytes"]
    assert all(one["activation_bytes"] > 0 and one["optimizer_bytes"] > 0 for one in figures.values())
    assert not (real.root / "artifacts" / "finetune").exists()
    assert counts(real.leanlm(*arguments)) == (0, 2, 0)
