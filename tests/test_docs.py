"""What the README says is what the program does."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from flows.edit import assignment
from tasks.compatibility import problems
from tasks.core.files import read_yaml
from tasks.core.schema import validate
from tasks.ledger.predict.subject import config_for
from tasks.optimizers import Optimizer
from tasks.params import Params, override
from tests.models import config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(start: str, end: str) -> str:
    """The README's text between two markers."""
    return README.partition(start)[2].partition(end)[0].strip()


def test_table_of_techniques_is_generated() -> None:
    """The table is what `leanlm techniques --markdown` prints."""
    result = CliRunner().invoke(main, ["techniques", "--markdown"])
    assert result.exit_code == 0, result.output
    assert between("<!-- techniques -->", "<!-- /techniques -->") == result.output.strip()


NUMBERS = dict(enumerate(("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"), 10))


def test_the_optimizers_are_counted() -> None:
    """README and CHANGELOG say as many as the registry has."""
    word = NUMBERS[len(Optimizer.techniques())]
    for text in (README, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")):
        assert re.findall(r"(\w+) optimizers(?:,| \()", text) == [word]


def test_every_benchmark_is_named() -> None:
    """A benchmark, a file of `benchmarks/` that can be run, is in the CHANGELOG."""
    known = set(re.findall(r"`(?:benchmarks/)?(\w+)(?:\.py)?`", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    runs = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text(encoding="utf-8")}
    assert runs <= known


def test_tree_names_what_is_there() -> None:
    """Every file and folder of the annotated tree exists, and every top-level one is in it."""
    tree = between("<!-- tree -->", "<!-- /tree -->")
    named = [line.split("#")[0].strip() for line in tree.splitlines() if line.strip() and not line.startswith("`")]
    assert all((ROOT / name).exists() for name in named), [name for name in named if not (ROOT / name).exists()]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    top = {path.split("/")[0] for path in listed}
    assert {t for t in top if not t.startswith(".")} <= {name.split("/")[0] for name in named}


def test_commands_exist() -> None:
    """Every `leanlm` command the README shows is one the program has, and every one it has is shown."""
    shown = set(re.findall(r"leanlm ([a-z]+)", README))
    assert shown == set(main.commands)


def test_make_targets_exist() -> None:
    """Every `make` target the README shows is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def runs() -> list[list[str]]:
    """Arguments of every `leanlm run -S ...` in the README's blocks of code."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [
        shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if "leanlm run -S" in line
    ]
    return [line[2:] for line in lines]


@pytest.mark.parametrize("arguments", runs(), ids=" ".join)
def test_commands_shown_are_not_refused(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the README says to run passes every check that is made before anything runs, on the values as delivered."""
    values = read_yaml(ROOT / "params.yaml")
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (tmp_path / "preferences.jsonl").write_text(json.dumps(pair) + "\n", encoding="utf-8")
    teacher = config(vocab_size=values["data"]["tokenizer"]["train"]["vocab_size"])
    (tmp_path / "path/to/model").mkdir(parents=True)
    (tmp_path / "path/to/model/config.json").write_text(json.dumps(teacher), encoding="utf-8")
    shutil.copytree(
        ROOT / "data", tmp_path / "data", ignore=lambda _, names: [name for name in names if not name.endswith(".yaml")]
    )
    monkeypatch.chdir(tmp_path)
    changes = dict(assignment(argument) for argument in arguments if argument != "-S")
    assert changes
    params = validate(Params, override(values, changes))
    assert problems(params, config_for(params)) == []
