"""Who is compared, and with which budget."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flows.compare import budgets
from flows.compare.points import Point, contenders, judged
from tasks import params
from tasks.core.errors import UserError
from tasks.params import Params
from tests.conftest import keep_machine

METHODS = list(params.STAGES["finetune"].techniques())  # type: ignore[attr-defined]
NOWHERE = "lora:target_modules=[nowhere]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few lines of text: the default params.yaml with a model of some size, and this machine's rates."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.py").write_text("def twice(x):\n    return 2 * x\n" * 400)
    values = params.override(
        Params().model_dump(mode="json"), {"data.source": "text", "design.llama.parameters": 100_000_000}
    )
    params.PATH.write_text(params.render(Params.model_validate(values)), encoding="utf-8")
    keep_machine(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_by_default_every_method_of_the_registry_is_compared() -> None:
    """One point per technique, each with its own method and nothing else changed."""
    points = contenders("finetune")
    assert [point.values for point in points] == [{"finetune.method": name} for name in METHODS]
    assert [point.params.finetune.method for point in points] == METHODS


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("lora", {"finetune.method": "lora"}),
        ("full+galore", {"finetune.method": "full", "finetune.optimizer.method": "galore"}),
        ("lora:r=16", {"finetune.method": "lora", "finetune.lora.r": 16}),
        (
            "full+galore:rank=4:learning_rate=1e-4",
            {
                "finetune.method": "full",
                "finetune.optimizer.method": "galore",
                "finetune.optimizer.galore.rank": 4,
                "finetune.learning_rate": 1e-4,
            },
        ),
        (
            "lora:target_modules=[q_proj,v_proj]",
            {"finetune.method": "lora", "finetune.lora.target_modules": ["q_proj", "v_proj"]},
        ),
        ("learning_rate=0.1", {"finetune.learning_rate": 0.1}),
    ],
)
def test_a_contender_is_a_set_of_assignments(said: str, values: dict[str, Any]) -> None:
    """Method, optimizer, and values of whichever of the two has them, else of the stage."""
    (point,) = contenders("finetune", [said])
    assert (point.name, point.values) == (said, values)


@pytest.mark.usefixtures("folder")
def test_commas_divide_contenders_but_not_lists() -> None:
    """Options may be repeated, and each may hold several."""
    names = [p.name for p in contenders("finetune", ["full, lora:target_modules=[q_proj,v_proj]", "lora:r=4"])]
    assert names == ["full", "lora:target_modules=[q_proj,v_proj]", "lora:r=4"]


@pytest.mark.usefixtures("folder")
def test_other_stages_are_compared_by_the_same_machinery() -> None:
    """Stages with techniques by method; those without, by whatever differs."""
    assert [p.params.compress.method for p in contenders("compress", ["none,nf4"])] == ["none", "nf4"]
    (point,) = contenders("pretrain", ["optimizer.method=muon:learning_rate=0.006"])
    assert point.params.pretrain.optimizer.method == "muon"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("methods", "common", "words"),
    [
        (["lorra"], [], "lorra.*not one of"),
        (["lora:rr=4"], [], r"lora:rr=4.*unknown parameter"),
        (["lora:r=0"], [], r"finetune\.lora\.r: found 0"),
        (["lora:r"], [], "expected NAME=VALUE"),
        (["lora+"], [], "not one of"),
        (["lora,lora"], [], "same contender"),
        (["lora,lora:r=8"], [], "same contender"),
        (["lora"], ["pretrain.steps=3"], "only parameters of finetune"),
        (["lora"], ["finetune.steps=-1"], r"finetune\.steps: found -1"),
    ],
)
def test_bad_input_is_refused_in_words(methods: list[str], common: list[str], words: str) -> None:
    """Whatever is no contender is named, before anything runs."""
    with pytest.raises(UserError, match=words):
        contenders("finetune", methods, common)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("stage", ["data", "design", "deploy_profile", "nothing"])
def test_stages_without_a_judgement_are_refused(stage: str) -> None:
    """And those there are, are named."""
    with pytest.raises(UserError, match="can be compared"):
        contenders(stage)


@pytest.mark.usefixtures("folder")
def test_what_does_not_fit_is_refused_in_its_own_words() -> None:
    """The technique's own reason, and the others are left alone."""
    fits, refused = judged(contenders("finetune", ["lora", NOWHERE]), "finetune")
    assert fits.refused == ""
    assert refused.refused == refused.params.finetune.technique.refuse(params_config(refused))
    assert "nowhere" in refused.refused


def params_config(point: Point) -> Any:
    """The config of the model a point leads to."""
    from tasks.ledger.predict.subject import config_for

    return config_for(point.params)


@pytest.mark.usefixtures("folder")
def test_equal_flops_by_prediction() -> None:
    """Every method of the registry takes the FLOPs of the first, within half a step and two percent."""
    points = judged(contenders("finetune", [], ["finetune.steps=200"]), "finetune")
    first, *others = [p for p in budgets.equal("flops", "finetune", points) if not p.refused]
    assert first.params == points[0].params
    want = flops(first)
    for point in others:
        assert flops(point) == pytest.approx(want, rel=0.02), point.name
    assert any(point.params.finetune.steps != 200 for point in others)


def flops(point: Point) -> float:
    """Predicted FLOPs of a point."""
    return float(budgets.predicted(point, "finetune")["flops"].value or 0)


@pytest.mark.usefixtures("folder")
def test_equal_memory_by_prediction() -> None:
    """The largest batch that fits, as many sequences; what doesn't fit at all is refused with both figures."""

    def memory(point: Point) -> float:
        return float(budgets.predicted(point, "finetune")["peak_memory_bytes"].value or 0)

    points = contenders("finetune", ["full,lora"], ["finetune.batch_size=1", "finetune.steps=120"])
    full, lora = budgets.equal("memory", "finetune", points)
    size, steps = lora.params.finetune.batch_size, lora.params.finetune.steps
    assert full.params.finetune.batch_size == 1
    assert size > 1
    assert abs(size * steps - 120) <= size / 2
    assert memory(lora) <= memory(full)
    larger = lora.having({"finetune.batch_size": size + 1})
    assert memory(larger) > memory(full)
    _, refused = budgets.equal("memory", "finetune", contenders("finetune", ["lora,full"], ["finetune.batch_size=1"]))
    assert re.search(r"needs .+B at finetune.batch_size 1, and lora peaks at .+B", refused.refused)


@pytest.mark.usefixtures("folder")
def test_a_budget_cannot_be_equal_to_what_a_contender_decides() -> None:
    """Own steps and equal FLOPs contradict each other; a stage without steps has no such budget."""
    with pytest.raises(UserError, match=r"--equal flops decides finetune\.steps"):
        budgets.check("flops", "finetune", contenders("finetune", ["lora,full:steps=3"]))
    with pytest.raises(UserError, match="takes no steps"):
        budgets.check("memory", "compress", contenders("compress", ["none,nf4"]))
