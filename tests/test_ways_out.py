"""Ways out of a refusal: what is offered fits when it is applied, the least loss of quality first, within two seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.core.files import read_yaml
from tasks.ledger import knobs, ways_out
from tasks.ledger.predict import plan
from tasks.params import flatten
from tasks.scaling import law as scaling
from tests import ways
from tests.models import MACHINE
from tests.ways import LAW, RESOURCES, ROOT, case, commands, limited, params, refusal, refuse, total, typed


@pytest.fixture(autouse=True)
def _source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways.source(tmp_path, monkeypatch)


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
