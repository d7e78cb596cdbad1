"""A workspace of one's own: the project's files in a temporary folder, a small real source, tiny parameters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tasks import params
from tasks.core.files import read_yaml
from tasks.core.schema import validate
from tasks.ledger import machine

ROOT = Path(__file__).resolve().parent.parent
COPIED = (
    "tasks",
    "flows",
    "presets",
    "dvc.yaml",
    "data/stdlib.yaml",
    "data/smollm2.yaml",
    "data/wikitext.yaml",
    "data/none",
    "hardware/accelerators.yaml",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
)
SOURCES = ("json", "email", "html", "http", "logging", "wsgiref", "urllib", "xml/dom")

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ |= {
    "DVC_NO_ANALYTICS": "1",
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@cache
def measured() -> Path:
    """The file of this machine: the project's if it has one, else one for all tests, outside what git sees."""
    kept = ROOT / machine.kept_at()
    path = kept if machine._kept(kept) else ROOT / "work" / machine.kept_at()
    machine.measure(path=path)
    return path


def keep_machine(project: Path) -> None:
    """Give a project this machine's rates, so that they aren't measured again."""
    target = project / machine.kept_at()
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(measured(), target)


class Workspace:
    """A copy of the project in which commands run as a user would run them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self.env.pop("PREFECT_API_URL", None)

    def build(self, preset: str) -> None:
        """Copy the project, make a small source of real text, take the parameters of a preset."""
        for name in COPIED:
            source, target = ROOT / name, self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        library = Path(sysconfig.get_paths()["stdlib"])
        for name in SOURCES:
            for path in sorted((library / name).glob("*.py")):
                target = self.root / "data" / "small" / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
        (self.root / "work").mkdir()
        keep_machine(self.root)
        subprocess.run(["git", "init", "-q"], cwd=self.root, check=True)
        chosen = params.flatten(read_yaml(ROOT / "presets" / f"{preset}.yaml"))
        self.params = params.override(params.Params().model_dump(mode="json"), dict(chosen))
        self.set({"data.source": "data/small"})

    def set(self, assignments: dict[str, Any]) -> None:
        """Assign parameters and write params.yaml."""
        self.params = params.override(self.params, assignments)
        text = params.render(validate(params.Params, self.params))
        (self.root / "params.yaml").write_text(text, encoding="utf-8")

    def run(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the workspace; `check` shows what it printed if it failed."""
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=1800,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{command} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def stage(self, name: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """`python -m tasks NAME`."""
        return self.run("python", "-m", "tasks", name, check=check, **env)

    def leanlm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`leanlm ...` with the workspace's own code."""
        return self.run("python", "-m", "flows", *arguments, check=check)


def build(root: Path, preset: str = "smoke") -> Workspace:
    """A workspace below `root`."""
    space = Workspace(root)
    space.build(preset)
    return space


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace of this test alone, nothing run in it yet."""
    return build(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which every stage has run once, by `dvc repro`. Tests read it and leave it as it is."""
    space = build(tmp_path_factory.mktemp("finished"))
    space.run("dvc", "repro")
    return space


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Prefect server for every test that asks: its record, to be copied to `work/servers.json` of a project."""
    from tests import toy

    folder = toy.make(tmp_path_factory.mktemp("prefect"))
    code = "from flows import environment, servers; environment.enter_project(); servers.start('prefect')"
    started = toy.shell([sys.executable, "-c", code], folder)
    assert started.returncode == 0, started.stderr
    yield folder / "work" / "servers.json"
    toy.leanlm(folder, "down")


@pytest.fixture(scope="session")
def ran_once(tmp_path_factory: pytest.TempPathFactory, prefect_server: Path) -> Path:
    """A toy project after its first `leanlm run`."""
    from tests import flow, toy

    return flow.prepared(toy.make(tmp_path_factory.mktemp("lifecycle") / "toy"), prefect_server)


@pytest.fixture
def lifecycle(ran_once: Path) -> Iterator[Path]:
    """The same; afterwards its parameters are the defaults again and everything is up to date."""
    from tests import toy

    yield ran_once
    toy.set_params(ran_once, {})
    toy.reproduce(ran_once)
