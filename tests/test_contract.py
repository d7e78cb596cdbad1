"""The agreements that hold the house together: dvc.yaml, signatures, schema, registry, imports, vocabulary, README."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import grimp
import pytest

from tasks import params
from tasks.core.files import read_yaml
from tasks.core.schema import Choice, Section
from tasks.declaration import _fill, _pick, declare
from tasks.ledger.vocabulary import VOCABULARY
from tasks.params import STAGES, Params

ROOT = Path(__file__).resolve().parent.parent
DVC = read_yaml(ROOT / "dvc.yaml")["stages"]
VALUES = Params().model_dump(mode="json")
SHELL = ("out", "job")


def choices(section: type[Section], prefix: str) -> list[tuple[str, type[Choice]]]:
    """Every choice of a stage: its dotted name and class."""
    found = [(prefix, section)] if issubclass(section, Choice) else []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found += choices(kind, f"{prefix}.{name}")
    return found


CHOICES = [found for stage, section in STAGES.items() for found in choices(section, stage)]
TECHNIQUES = [(name, method, kind) for name, choice in CHOICES for method, kind in choice.techniques().items()]


def test_stages_are_the_same_everywhere() -> None:
    """dvc.yaml, the packages with a run, and the tuple of stages name the same stages in the same order."""
    packages = {path.parent.name for path in (ROOT / "tasks").glob("*/run.py")}
    assert list(DVC) == list(STAGES)
    assert packages == set(STAGES)
    for stage, entry in DVC.items():
        assert entry["cmd"] == f"python -m tasks {stage}"
        assert entry["outs"] == [f"artifacts/{stage}"]
        assert entry["metrics"] == [{f"reports/{stage}.json": {"cache": False}}]


def test_order_is_topological() -> None:
    """A stage reads only what stages before it wrote."""
    made: set[str] = set()
    for entry in DVC.values():
        assert {dep for dep in entry["deps"] if dep.startswith("artifacts/")} <= made
        made |= set(entry["outs"])


@pytest.mark.parametrize("stage", STAGES)
def test_keywords_are_the_declared_inputs(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` takes what dvc.yaml declares, and nothing else."""
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.chdir(ROOT)
    declaration = declare(stage, VALUES)
    names = [*inspect.signature(importlib.import_module(f"tasks.{stage}.run").run).parameters]
    assert names[0] == "params"
    foreign = set(declaration.params) - {stage}
    assert set(names[1:]) == {*declaration.inputs, *foreign, *SHELL}


@pytest.mark.parametrize("stage", STAGES)
def test_how_a_model_is_judged_is_no_part_of_unfinished_work(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task or context leaves the key as it is; held-out text of another length is other data."""
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.chdir(ROOT)

    def key(**assignments: Any) -> str:
        return replace(declare(stage, params.override(VALUES, assignments)), inputs={}, code=[]).key()

    judged = {"evaluate.tasks": ["code"], "evaluate.max_bytes": 5, "evaluate.context_length": 7}
    assert (key(**judged) == key()) == (stage != "data")
    if stage not in ("data", "design"):
        assert key(seed=9) != key()


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_cover_the_imports(stage: str) -> None:
    """Every first-party module a stage imports, directly or not, is among its deps: DVC sees every edit."""
    graph = grimp.build_graph("tasks")
    registered = {kind.__module__ for _, _, kind in TECHNIQUES}
    top = f"tasks.{stage}.run"
    closure = {top, f"tasks.{stage}"}
    waiting = [top, f"tasks.{stage}"]
    while waiting:
        for module in graph.find_modules_directly_imported_by(waiting.pop()):
            if module not in closure and module not in registered:
                closure.add(module)
                waiting.append(module)
    deps = [dep for dep in DVC[stage]["deps"] if dep.startswith("tasks/")]
    uncovered = {m for m in closure - {"tasks"} if not any(covers(dep, m) for dep in deps)}
    assert not uncovered


def covers(dep: str, module: str) -> bool:
    """Whether a dep of dvc.yaml is the file of a module or a folder above it."""
    path = module.replace(".", "/")
    return dep in (f"{path}.py", f"{path}/__init__.py") or (
        not dep.endswith(".py") and f"{path}/".startswith(f"{dep}/")
    )


@pytest.mark.parametrize(("name", "choice"), CHOICES, ids=[name for name, _ in CHOICES])
def test_only_the_chosen_technique_is_a_dep(name: str, choice: type[Choice]) -> None:
    """Each technique is a file of its own, named after its method, that dvc.yaml pulls in by template."""
    stage, room = name.partition(".")[0], choice.__module__
    for method, kind in choice.techniques().items():
        assert kind.__module__ == f"{room}.{method}"
    assert f"{room.replace('.', '/')}/${{{name}.method}}.py" in DVC[stage]["deps"]
    assert f"{name}.${{{name}.method}}" in DVC[stage]["params"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_field_is_declared(stage: str) -> None:
    """Every value of a stage's block is a dependency, but for the techniques that aren't chosen."""
    chosen = {name: _section(name).method for name, _ in CHOICES}
    declared = set(dict(params.flatten(_pick(VALUES, [_fill(p, VALUES) for p in DVC[stage]["params"]]))))
    for name, _ in params.flatten({stage: VALUES[stage]}):
        spare = any(
            f"{name}.".startswith(f"{prefix}.{method}.") and method != chosen[prefix]
            for prefix, choice in CHOICES
            for method in choice.techniques()
        )
        assert spare or name in declared, name
    assert declared <= set(dict(params.flatten(VALUES)))


def _section(name: str) -> Any:
    current: Any = Params()
    for part in name.split("."):
        current = getattr(current, part)
    return current


@pytest.mark.parametrize("stage", STAGES)
def test_declared_values_are_what_dvc_says(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's reading of a declaration equals that of DVC's own API."""
    import dvc.api

    monkeypatch.chdir(ROOT)
    values = read_yaml(ROOT / "params.yaml")
    mine = _pick(values, [_fill(name, values) for name in DVC[stage]["params"]])
    assert dvc.api.params_show(stages=stage) == mine


@pytest.mark.parametrize(("where", "method", "kind"), TECHNIQUES, ids=[f"{w}.{m}" for w, m, _ in TECHNIQUES])
def test_techniques_say_what_they_are(where: str, method: str, kind: type[Section]) -> None:
    """A technique has a one-line docstring that ends with its source, works with defaults, and explains every field."""
    first = (kind.__doc__ or "").strip().splitlines()[0]
    assert re.search(r"\(.+\)\.$", first), f"{where}.{method}: {first}"
    kind()
    assert all(field.description for field in kind.model_fields.values())


def test_every_parameter_is_explained() -> None:
    """Every value of params.yaml has a description and lies in the file with it."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            assert "#" in line, line


def test_params_yaml_is_the_default_preset() -> None:
    """The committed params.yaml is the default preset, rendered."""
    chosen = dict(params.flatten(read_yaml(ROOT / "presets" / "default.yaml")))
    expected = params.render(Params.model_validate(params.override(VALUES, chosen)))
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")))
def test_presets_validate(preset: str) -> None:
    """Every preset is a configuration the schema accepts."""
    chosen = dict(params.flatten(read_yaml(ROOT / "presets" / f"{preset}.yaml")))
    Params.model_validate(params.override(VALUES, chosen))


def test_metrics_in_code_are_in_the_vocabulary() -> None:
    """Every metric name a stage writes is in the vocabulary."""
    pattern = re.compile(r'"([a-z_0-9]+)(?:/[^"]*)?": (?:counted|measured|modelled|assumed|missing)\(')
    for path in (ROOT / "tasks").glob("*/*.py"):
        for name in pattern.findall(path.read_text(encoding="utf-8")):
            assert name in VOCABULARY, f"{path.name}: {name}"


@pytest.mark.slow
def test_reports_hold_the_vocabulary(finished: Any) -> None:
    """Every report of a real run names metrics of the vocabulary, with unit and method, null only with a reason."""
    import json

    for stage in STAGES:
        report = json.loads((finished.root / "reports" / f"{stage}.json").read_text(encoding="utf-8"))
        assert report["stage"] == stage
        for name, entry in {**report["metrics"], **report["predicted"]}.items():
            assert entry["unit"] == VOCABULARY[name.partition("/")[0]].unit
            assert entry["method"] in ("measured", "counted", "modelled", "assumed")
            assert entry["value"] is not None or entry["note"], name
