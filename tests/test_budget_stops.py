"""A stage that runs over its budget stops between two pieces of work, keeps what it can, and goes on when it may."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import OverBudget
from tasks.core.job import Job
from tasks.core.schema import validate
from tasks.deploy_profile import DeployProfile
from tasks.deploy_profile.engines import launch as engines
from tasks.deploy_profile.profile import profile
from tasks.evaluate import Evaluate
from tests import models

USED_UP = "budget.seconds is used up: 5 s of 4 s"


def test_a_loop_stops_between_two_items(tmp_path: Path) -> None:
    """The item at work is finished, the next isn't begun; after the last one nothing stops a stage that is done."""
    done: list[int] = []
    job = Job("data", tmp_path, over_budget=lambda _: USED_UP if len(done) >= 2 else "")
    with pytest.raises(OverBudget, match=r"data: stopped after batch 2 of 3: budget\.seconds is used up") as caught:
        done.extend(job.track(range(3), 3, "batch"))
    assert caught.value.code == 3
    assert "raise the budget and run again" in caught.value.hint
    assert done == [0, 1]
    assert list(job.track(range(1), 1, "batch")) == [0]


def test_the_work_of_training_counts_in_between(tmp_path: Path) -> None:
    """Between other pieces of work the budget is asked with the FLOPs that training has computed."""
    job = Job("pretrain", tmp_path, over_budget=lambda flops: f"{flops} FLOP", flops=12.0)
    with pytest.raises(OverBudget, match=r"stopped after the export: 12\.0 FLOP"):
        job.stop_if_over_budget("the export")


def test_evaluation_stops_and_the_training_is_kept(tmp_path: Path) -> None:
    """Stopped while the trained model is scored: the last step's checkpoint is there, so no step is trained again."""
    from tasks.evaluate.text import score
    from tasks.models.load import new_model
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tests.test_training import batch, settings

    place, blueprint = models.job(tmp_path), models.config()
    model = new_model(blueprint, seed=0)
    Loop(model, batch, settings(steps=4, checkpoint_every=100, schedule=Schedule(warmup_steps=1)), place).run()
    place.over_budget = lambda flops: USED_UP if flops > 0 else ""
    texts, params = ["one two three"] * 8, Evaluate(batch_size=1, context_length=8)
    with pytest.raises(OverBudget, match="stopped after evaluation batch 1 of"):
        score(model, models.tokenizer(), texts, params, place)
    assert sorted(path.name for path in place.work.glob("checkpoint-*")) == [
        "checkpoint-00000000",
        "checkpoint-00000004",
    ]
    place.over_budget = lambda _: ""
    steps: list[int] = []

    def counted(step: int) -> Any:
        steps.append(step)
        return batch(step)

    again = Loop(new_model(blueprint, seed=0), counted, settings(steps=4, checkpoint_every=100), place)
    again.run()
    assert again.progress.step == 4
    assert set(steps) <= {0}, "only the batch that FLOPs are counted on"


@pytest.mark.slow
def test_an_engine_that_was_profiled_is_not_profiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over budget after the first of two engines: its figures are kept; with a higher budget only the other one starts."""
    from tests import tiny_llama

    out = tmp_path / "out"
    tiny_llama.save(out / "safetensors")
    started: list[str] = []
    real = engines.launch

    def launched(name: str, request: Any) -> Any:
        started.append(name)
        return real("transformers", request)

    monkeypatch.setattr(engines, "launch", launched)
    monkeypatch.setitem(profile.__globals__["ENGINES"], "again", profile.__globals__["ENGINES"]["transformers"])
    params = validate(
        DeployProfile,
        {"engines": ["transformers", "again"], "prompt_tokens": 4, "max_new_tokens": 3, "repeats": 2},
    )
    job = Job("deploy_profile", tmp_path, over_budget=lambda _: USED_UP)
    tokenizer = models_tokenizer(out)
    with pytest.raises(OverBudget, match="stopped after profiling transformers") as caught:
        profile(params, [5, 6, 7, 8], tokenizer, out, job)
    assert "kept" in caught.value.hint
    (kept,) = tmp_path.glob("engine-transformers-*.json")
    peak = json.loads(kept.read_text())["peak_memory_bytes"]
    job.over_budget = lambda _: ""
    metrics = profile(params, [5, 6, 7, 8], tokenizer, out, job)
    assert started == ["transformers", "again"]
    assert metrics["peak_memory_bytes/transformers"].value == peak


def models_tokenizer(out: Path) -> Any:
    """The tokenizer beside the model."""
    from tasks.models.load import load_tokenizer

    return load_tokenizer(out / "safetensors")
