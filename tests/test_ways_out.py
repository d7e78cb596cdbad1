"""Ways out of a refusal: what is offered fits when it is applied, the least loss of quality first, within two seconds."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.edit import _assignment
from tasks.core.errors import OverBudget, UserError
from tasks.core.files import read_yaml
from tasks.core.measure import Metrics
from tasks.core.schema import validate
from tasks.ledger import budget, knobs, ways_out
from tasks.ledger.fit import Case
from tasks.ledger.machine import Machine
from tasks.ledger.predict import plan
from tasks.ledger.predict.text import Text
from tasks.params import STAGES, Params, flatten, override
from tasks.scaling import law as scaling

ROOT = Path(__file__).parents[1]
MACHINE = Machine(
    gemm_flops_per_second={"float32": 2e11, "bfloat16": 1e12},
    bandwidth_bytes_per_second=3e10,
    host_bandwidth_bytes_per_second=3e10,
    disk_bytes_per_second=1e9,
    native_bf16=True,
    cores=2,
)
RESOURCES = ["seconds", "joules", "dollars", "flops", "memory_bytes"]
LAW = scaling.Law(1.2, 40.0, 0.35, 900.0, 0.33, (), 0.01, "a test")


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with four megabytes of text, and no scaling law."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").mkdir()
    for number in range(400):
        (tmp_path / "text" / f"{number}.txt").write_text("0123456789" * 1000)


def params(**assignments: Any) -> Params:
    """Default parameters with a few changed (dots written as two underscores)."""
    dotted = {name.replace("__", "."): value for name, value in assignments.items()}
    return validate(Params, override(Params().model_dump(mode="json"), {"data.source": "text"} | dotted))


def total(planned: Mapping[str, Metrics], resource: str) -> float:
    """What a plan takes of a resource, known."""
    found = budget.total(resource, planned)
    assert found is not None
    return found


def limited(resource: str, share: float, **assignments: Any) -> Params:
    """Parameters whose budget of one resource is a share of what they are predicted to take."""
    enough = total(plan(params(**assignments), MACHINE), resource)
    limit = int(share * enough) if resource == "memory_bytes" else share * enough
    return params(**assignments, **{f"budget__{resource}": limit})


def refuse(params: Params, stages: Any = STAGES, spent: dict[str, Metrics] | None = None) -> None:
    """As both doors refuse."""
    planned = {stage: metrics for stage, metrics in plan(params, MACHINE).items() if stage in stages}
    budget.refuse(planned, params.budget, spent, lambda: ways_out.offer(params, stages, spent or {}, None, MACHINE))


def refusal(params: Params, stages: Any = STAGES, spent: dict[str, Metrics] | None = None) -> OverBudget:
    """The refusal of parameters that don't fit."""
    with pytest.raises(OverBudget) as caught:
        refuse(params, stages, spent)
    return caught.value


def commands(refused: UserError) -> list[str]:
    """The changes it offers, as they stand there."""
    return [line.strip().partition("  ")[0] for line in refused.hint.splitlines()[1:]]


def typed(params: Params, command: str) -> Params:
    """`params` after a command that was offered, read as `leanlm` reads it."""
    first, second, *rest = shlex.split(command)
    assert (first, second) == ("leanlm", "run")
    assert set(rest[::2]) == {"-S"}
    return validate(Params, override(params.model_dump(mode="json"), dict(map(_assignment, rest[1::2]))))


def case(params: Params, stages: Any = STAGES) -> Case:
    """The case that `offer` makes."""
    return Case(params, stages, {}, None, MACHINE, Text(4_000_000, 400))


@pytest.mark.parametrize("share", [0.93, 0.6])
@pytest.mark.parametrize("resource", RESOURCES)
def test_every_change_offered_is_accepted(resource: str, share: float) -> None:
    """Up to three commands; each, typed, passes the very refusal that offered it; exit code 3; a change is no no-op."""
    start = limited(resource, share)
    refused = refusal(start)
    assert refused.code == 3
    assert f"raise budget.{resource} to at least" in refused.hint
    offered = commands(refused)
    assert 1 <= len(offered) <= ways_out.OFFERED
    for command in offered:
        changed = typed(start, command)
        assert changed != start
        refuse(changed)


@pytest.mark.parametrize("preset", ["smoke", "default"])
def test_three_ways_out_of_a_tenth_less_time(preset: str) -> None:
    """With a tenth of the time cut there are three, and the hint counts them."""
    path = ROOT / "presets" / f"{preset}.yaml"
    chosen = {name.replace(".", "__"): v for name, v in flatten(read_yaml(path))} if path.exists() else {}
    refused = refusal(limited("flops", 0.9, **(chosen | {"data__source": "text"})))
    assert "the 3 cheapest changes that fit" in refused.hint
    assert len(commands(refused)) == 3


@pytest.mark.parametrize("law", [None, LAW])
@pytest.mark.parametrize("resource", RESOURCES)
def test_changes_are_ranked_by_quality_lost(
    resource: str, law: scaling.Law | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves the model alone first; then the predicted loss never falls; only the law's own figures are in bits."""
    monkeypatch.setattr(scaling, "load", lambda: law)
    found, _ = ways_out.search(case(limited(resource, 0.9)))
    assert found
    assert [one.setting.free for one in found] == sorted((one.setting.free for one in found), reverse=True)
    lost = [one.harm for one in found]
    assert lost == sorted(lost)
    assert min(lost) >= 0
    for one in found:
        assert (one.harm == 0) or not one.setting.free
        assert one.bits is None or (law is not None and one.bits == one.harm)
        assert ("bits per byte" in one.words) == (one.bits is not None)


def test_the_law_prices_a_change_in_bits_per_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less text loses what the law says between the two amounts of text; another family's law says nothing."""
    monkeypatch.setattr(scaling, "load", lambda: LAW)
    start = limited("flops", 0.6)
    one = next(one for one in ways_out.search(case(start))[0] if one.after.parameters == one.before.parameters)
    before, after = one.before, one.after
    lost = LAW.B / after.text**LAW.beta - LAW.B / before.text**LAW.beta
    assert one.bits == pytest.approx(lost)
    assert f"{lost:+.3f} bits per byte" in one.words
    other = replace(LAW, family="mamba2")
    monkeypatch.setattr(scaling, "load", lambda: other)
    assert all(one.bits is None for one in ways_out.search(case(start))[0])


def test_each_change_is_the_mildest_of_its_knob() -> None:
    """The next milder round number of the same parameter doesn't fit."""
    start = limited("flops", 0.6)
    single = [one for one in ways_out.search(case(start))[0] if len(one.setting.assignments) == 1]
    names = [next(iter(one.setting.assignments)) for one in single]
    assert names
    for one, name in zip(single, names, strict=True):
        if name not in knobs.LEAST:
            continue
        value, before = one.setting.assignments[name], dict(flatten(start.model_dump()))[name]
        milder = [number for number in knobs.round_numbers(before, 1) if number > value]
        assert not milder or case(start).fits(knobs.Setting({name: milder[-1]}, 1.0)) is None


def test_only_what_will_run_again_is_changed() -> None:
    """With data and pretraining finished and paid for, no change would make them run again; what they took counts."""
    whole = plan(params(), MACHINE)
    spent = {stage: whole[stage] for stage in ("data", "design", "pretrain")}
    ahead = ("finetune", "compress", "deploy_profile")
    left = sum(whole[stage]["wall_seconds"].value or 0 for stage in ahead)
    start = params(budget__seconds=total(whole, "seconds") - 0.2 * left)
    refused = refusal(start, ahead, spent)
    for command in commands(refused):
        changed = typed(start, command)
        for block in ("data", "design", "pretrain", "evaluate"):
            assert getattr(changed, block) == getattr(start, block)
        refuse(changed, ahead, spent)


@pytest.mark.parametrize("name", list(knobs.LEAST))
def test_a_knobs_owner_is_the_first_stage_that_reads_it(name: str) -> None:
    """What dvc.yaml says depends on a parameter first is what runs again when it is turned."""
    graph = read_yaml(ROOT / "dvc.yaml")["stages"]
    readers = [
        stage
        for stage in STAGES
        for read in graph[stage].get("params", [])
        if f"{name}.".startswith(read.replace("${data.tokenizer.method}", "train") + ".")
    ]
    block = name.partition(".")[0]
    assert readers[0] == knobs.OWNERS.get(block, block)


def test_a_design_may_be_drawn_up_again_for_pretraining() -> None:
    """A finished design costs nothing: a smaller one is a way out as long as pretraining is still to come."""
    start = limited("flops", 0.3)
    turned = [knob for knob in knobs.knobs(start, _about(start)) if knob.owner == "design"]
    assert turned
    assert all(case(start, ("pretrain", "finetune")).owns(knob) for knob in turned)
    assert not any(case(start, ("finetune",)).owns(knob) for knob in turned)


def _about(params: Params) -> Any:
    from tasks.ledger.predict.subject import subject

    return subject(params, MACHINE)


@pytest.mark.parametrize("resource", RESOURCES)
def test_where_nothing_fits_the_least_is_said(resource: str) -> None:
    """A budget no change can meet: no command, but what everything at its least would cost."""
    refused = refusal(params(**{f"budget__{resource}": 1 if resource == "memory_bytes" else 1e-6}))
    assert commands(refused) == []
    assert "no change of parameters is enough" in refused.hint
    assert "it would still take" in refused.hint


def test_a_model_that_was_there_before_is_not_resized(tmp_path: Path) -> None:
    """Without a family (`design.method: existing`) no size is offered; the rest is."""
    import json

    from tests.models import config

    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "config.json").write_text(json.dumps(config()))
    start = limited("flops", 0.7, design__method="existing", pretrain__init="given")
    offered = commands(refusal(start))
    assert offered
    assert not any("design" in command for command in offered)


def test_two_limits_at_once() -> None:
    """Both are named, both would have to be raised, and every change meets both."""
    seconds = total(plan(params(), MACHINE), "seconds")
    start = params(budget__flops=2e13, budget__seconds=0.8 * seconds)
    refused = refusal(start)
    assert refused.message.count("\nbudget.") == 1
    assert "raise budget.seconds to at least" in refused.hint
    assert " and budget.flops to at least" in refused.hint
    for command in commands(refused):
        refuse(typed(start, command))


def test_a_stage_by_hand_is_helped_even_where_the_rest_cannot_be() -> None:
    """What comes after should fit too; where it can't, changes for the stage itself are offered, and that is said."""
    start = params(finetune__steps=10, evaluate__max_bytes=1_000_000)
    own = float(plan(start, MACHINE)["finetune"]["flops"].value or 0)
    tight = validate(Params, override(start.model_dump(mode="json"), {"budget.flops": 0.7 * own}))
    later = ("compress", "deploy_profile")
    said = ways_out.offer(tight, ["finetune"], {}, None, MACHINE, later)
    assert "that fit finetune, though not what comes after:" in said
    for command in [line.strip().partition("  ")[0] for line in said.splitlines()[1:]]:
        refuse(typed(tight, command), ["finetune"])
    roomy = validate(Params, override(start.model_dump(mode="json"), {"budget.flops": 1e15}))
    assert "though" not in ways_out.offer(roomy, ["finetune"], {}, None, MACHINE, later)


def test_memory_that_lacks_is_found_in_smaller_batches() -> None:
    """A stage that doesn't fit the machine: the first way out loses no text, and every change fits the free memory."""
    start = params(pretrain__batch_size=128, pretrain__context_length=512)
    planned = plan(start, MACHINE)
    peak = float(planned["pretrain"]["peak_memory_bytes"].value or 0)
    free = 0.5 * peak
    ahead = list(STAGES)[2:]
    with pytest.raises(UserError, match="of memory") as caught:
        budget.check_memory("pretrain", peak, free, lambda: ways_out.offer(start, ahead, {}, free, MACHINE))
    assert "lower pretrain.batch_size" in caught.value.hint
    offered = commands(caught.value)
    assert offered
    for command in offered:
        again = plan(typed(start, command), MACHINE)
        assert all(float(again[stage]["peak_memory_bytes"].value or 0) <= free for stage in ahead)
    first = typed(start, offered[0]).pretrain
    assert first.steps * first.batch_size >= start.pretrain.steps * start.pretrain.batch_size
    assert first.batch_size < start.pretrain.batch_size


def test_a_refusal_is_quick() -> None:
    """Under two seconds of one core, with hundreds of files to learn from and a refusal that takes several changes."""
    start = limited("seconds", 0.3)
    began = time.process_time()
    assert commands(refusal(start))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("below", "least"), [(350, 1), (16, 1), (1, 1), (131_072, 1000), (7, 3), (100, 99)])
def test_round_numbers(below: int, least: int) -> None:
    """Falling, within bounds, at most two digits that aren't 0, and none is skipped."""
    found = knobs.round_numbers(below, least)
    assert found == [n for n in range(below - 1, least - 1, -1) if len(str(n).rstrip("0")) <= 2]
