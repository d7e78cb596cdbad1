"""Ways out of a refusal, at their limits: owners, nothing that fits, two limits at once, memory, speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import validate
from tasks.ledger import budget, knobs, predict, ways_out
from tasks.ledger.predict import plan
from tasks.params import STAGES, Params, override
from tests import ways
from tests.models import MACHINE
from tests.ways import RESOURCES, ROOT, case, commands, limited, params, refusal, refuse, total, typed


@pytest.fixture(autouse=True)
def _source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways.source(tmp_path, monkeypatch)


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


def test_memory_that_lacks_is_found_without_touching_the_model() -> None:
    """A stage that doesn't fit the machine: the first way out computes the same gradient, and every change fits the memory."""
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
    first = typed(start, offered[0])
    same = {"gradient_accumulation_steps", "gradient_checkpointing"}
    assert first.pretrain != start.pretrain
    assert first.pretrain.model_copy(update={name: getattr(start.pretrain, name) for name in same}) == start.pretrain
    assert typed(start, offered[0]).model_copy(update={"pretrain": start.pretrain}) == start


@pytest.mark.parametrize("resource", ["seconds", "memory_bytes"])
def test_a_refusal_takes_few_plans(resource: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that takes several changes is found with at most two hundred plans: some milliseconds each."""
    start, made = limited(resource, 0.3 if resource == "seconds" else 0.7), []
    planned = predict.plan

    def counted(*arguments: Any, **more: Any) -> Any:
        made.append(1)
        return planned(*arguments, **more)

    monkeypatch.setattr(predict, "plan", counted)
    assert commands(refusal(start))
    assert 10 < len(made) < 200


@pytest.mark.parametrize(("below", "least"), [(350, 1), (16, 1), (1, 1), (131_072, 1000), (7, 3), (100, 99)])
def test_round_numbers(below: int, least: int) -> None:
    """Falling, within bounds, at most two digits that aren't 0, and none is skipped."""
    found = knobs.round_numbers(below, least)
    assert found == [n for n in range(below - 1, least - 1, -1) if len(str(n).rstrip("0")) <= 2]
