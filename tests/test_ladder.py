"""The scaling ladder: which rungs, a real one that is stopped and goes on, and what the report makes of its law."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import scale
from flows.report import scaling as section
from tasks.core.errors import OverBudget, UserError
from tasks.design import Design
from tasks.params import Params, load
from tasks.scaling import ladder, law
from tasks.scaling.law import Record
from tasks.scaling.plan import Plan, survey
from tasks.scaling.rung import Rung, train
from tests.conftest import Workspace
from tests.report_ledger import document, ledger
from tests.scaling_world import made, world


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The default design on text that only its description exists of."""
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "artifacts" / "data"
    data.mkdir(parents=True)
    shards = {"vocab_size": 4096, "splits": {"train": {"bytes": 3_000_000, "tokens": 1_000_000}}}
    (data / "shards.json").write_text(json.dumps(shards))
    return survey(Params())


def flops(rung: Rung) -> float:
    """A rung's cost in FLOPs."""
    return rung.flops


def test_rungs_fill_the_budget_and_stay_the_same(planned: Plan) -> None:
    """They fit the budget together, are smaller than the plan, give a law enough to go on, and are kept once chosen."""
    found = ladder.rungs(planned, 2e13, "flops", flops)
    assert 2e13 / 4 < sum(rung.flops for rung in found) <= 2e13
    assert max(rung.parameters for rung in found) <= planned.parameters / 2
    assert len({rung.parameters for rung in found}) >= 3
    assert len({rung.steps for rung in found}) >= 3
    assert [rung.flops for rung in found] == sorted(rung.flops for rung in found)
    assert len({rung.folder for rung in found}) == len(found)
    assert ladder.rungs(planned, 2e13, "flops", lambda _: 1e99) == found


@pytest.mark.parametrize("family", [name for name in Design.techniques() if name != "existing"])
def test_every_family_has_a_ladder(planned: Plan, family: str) -> None:
    """Three sizes at least, each smaller than the next and than half of the plan, or the smallest three there are."""
    found = ladder.rungs(survey(Params.model_validate({"design": {"method": family}})), 1e18, "flops", flops)
    assert planned.family == "llama"
    assert len({rung.parameters for rung in found}) >= 3
    assert {rung.blueprint["model_type"] for rung in found} == {Design.techniques()[family].model_type}  # type: ignore[attr-defined]


def test_rates_and_warmup_follow_the_stated_rule(planned: Plan) -> None:
    """Warm-up takes the same share of the steps; the learning rate falls with the width, and is the planned one's at its."""
    configured = planned.params.pretrain
    for rung in ladder.rungs(planned, 2e13, "flops", flops):
        wider = planned.config["hidden_size"] / rung.blueprint["hidden_size"]
        assert rung.pretrain["learning_rate"] == pytest.approx(configured.learning_rate * wider, rel=0.01)
        share = rung.pretrain["schedule"]["warmup_steps"] / rung.steps
        assert share == pytest.approx(configured.schedule.warmup_steps / configured.steps, abs=0.5 / rung.steps)
    assert ladder.learning_rate(0.01, planned.config, planned.config) == 0.01
    assert ladder.learning_rate(0.01, {"hidden_size": 128}, {"hidden_size": 512}) == 0.0025


def test_budget_too_small_says_what_would_do(planned: Plan) -> None:
    """Refused with the least that would do, and that much is enough."""
    with pytest.raises(UserError, match="the smallest ladder of this family takes about") as caught:
        ladder.rungs(planned, 1e9, "flops", flops)
    least = float(str(caught.value).rpartition("--flops ")[2].split()[0])
    assert ladder.rungs(planned, least * 1.01, "flops", flops)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"design": {"method": "existing"}}, r"design\.method: found 'existing'"),
        ({"pretrain": {"steps": 0}}, r"pretrain\.steps: found 0"),
        ({"pretrain": {"steps": 20}}, r"pretrain\.steps: found 20"),
    ],
)
def test_nothing_to_scale_is_said(planned: Plan, changes: dict[str, Any], words: str) -> None:
    """An existing model and a run without (enough) steps have no ladder."""
    assert planned.params.design.method == "llama"
    with pytest.raises(UserError, match=words):
        ladder.rungs(survey(Params.model_validate(changes)), 1e15, "flops", flops)


def test_no_data_says_how_to_make_it(tmp_path: Path) -> None:
    """Before the data stage has run, its command is named."""
    with pytest.raises(UserError, match="dvc repro data"):
        survey(Params(), tmp_path / "artifacts" / "data")


@pytest.mark.slow
def test_ladder_from_end_to_end(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped rung goes on from its checkpoint, the law is kept and shown, and a second run trains nothing."""
    workspace.set({"pretrain.steps": 40, "pretrain.checkpoint_every": 4, "evaluate.max_bytes": 2048})
    workspace.stage("data")
    monkeypatch.chdir(workspace.root)
    plan = survey(load())
    rungs = ladder.rungs(plan, 1e14, "flops", flops)
    for rung in rungs[:-1]:
        train(rung.prepare(), Path("artifacts/data"), lambda _: "")
    last = rungs[-1]
    with pytest.raises(OverBudget):
        train(last.prepare(), Path("artifacts/data"), lambda done: "enough" if done > last.flops / 2 else "")
    assert last.result() is None
    first = workspace.leanlm("scale", "--flops", "1e14")
    assert "goes on from step" in first.stderr
    assert first.stderr.count("rung ") == 1
    record = law.read()
    assert record is not None
    assert len(record.points) == len(rungs)
    assert record.law.data == law.data_key(Path("artifacts/data"))
    assert "planned: " in first.stdout
    assert not list(Path("work/scale").glob("*/checkpoint-*"))
    second = workspace.leanlm("scale", "--flops", "1e14")
    assert "rung " not in second.stderr
    assert second.stdout == first.stdout == workspace.leanlm("scale", "--points").stdout


def test_spent_budget_stops_and_keeps(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that runs out of budget ends the ladder with exit code 3 where there is too little for a law."""
    assert planned.parameters > 0
    monkeypatch.setattr(scale, "_train", lambda *_: OverBudget.code)
    monkeypatch.setattr(ladder, "rungs", lambda *_: ladder._chosen(planned, 2e13, "flops", flops))
    Path("params.yaml").write_text("seed: 0\n")
    with pytest.raises(OverBudget, match="is used up before rung 1 of"):
        scale.scale(10.0, 2e13)
    assert not law.PATH.exists()


def test_what_the_runs_can_not_tell_is_said(planned: Plan) -> None:
    """An exponent that the replicas leave open, an optimum far beyond the runs, another text: each has its sentence."""
    Path("params.yaml").write_text("seed: 0\n")
    known, runs = made(data=planned.data, family="llama", bytes_per_token=3.0), world(0.0)
    assert "hardly determined" not in "".join(scale.said(Record(known, runs)))
    torn = replace(known, replicas=((0.6, 12.0, 0.1, 160.0, 0.3),) * 9 + ((0.6, 12.0, 1.9, 160.0, 0.3),) * 9)
    assert any(line.startswith("alpha hardly determined") for line in scale.said(Record(torn, runs)))
    assert "so it is not said" in scale.said(Record(replace(known, beta=1.9), runs))[-1]
    assert "another text or family" in scale.said(Record(replace(known, data="another"), runs))[-1]


@pytest.mark.parametrize(("shift", "word"), [(1.0, "inside"), (1.2, "outside")])
def test_report_holds_the_law_against_what_came_out(planned: Plan, shift: float, word: str) -> None:
    """The report says the interval at the size that was pretrained, and whether the measured loss lies in it."""
    from flows.report import load as reading
    from flows.report import render

    Path("params.yaml").write_text("seed: 0\n")
    Path("reports").mkdir()
    metrics = ledger()
    tokens = metrics["pretrain"]["tokens"].value or 0
    known = made(data=planned.data, family="llama", bytes_per_token=3.0)
    expected = known.bits_per_byte(planned.parameters, tokens * 3.0, metrics["data"]["train_bytes"].value)
    metrics["pretrain"]["bits_per_byte"] = replace(metrics["pretrain"]["bits_per_byte"], value=expected.value * shift)
    for stage in ("data", "design", "pretrain"):
        Path("reports", f"{stage}.json").write_text(json.dumps(document(stage, metrics[stage])))
    Path("artifacts/design").mkdir()
    Path("artifacts/design/blueprint.json").write_text(json.dumps(planned.config))
    assert section.section(reading.read()) is None
    law.save(Record(known, world(0.005)))
    page = render(reading.read())
    assert f"({expected.low:.3f}..{expected.high:.3f})" in page
    assert f": {word} the interval" in page
    law.save(Record(replace(known, data="another"), world(0.005)))
    assert "The text has changed" in render(reading.read())
