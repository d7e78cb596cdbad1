"""Early stopping: the best weights come out, killed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.finetune import Finetune
from tests.finetuned import finetuned, losses, prepare


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What data and pretrain leave, tiny, with chats of many lengths."""
    return prepare(tmp_path_factory.mktemp("base"))


STOPPING = {"steps": 40, "eval_every": 2, "learning_rate": 0.2, "checkpoint_every": 3, "early_stopping_patience": 3}
"""Far too quick: the held-out loss soon rises."""


def test_early_stopping_gives_the_best_weights(base: Path, tmp_path: Path) -> None:
    """It stops after so many evaluations without a better one, and what comes out has the lowest loss there was."""
    out = tmp_path / "run" / "out"
    metrics = finetuned(base, out, **STOPPING)
    seen = losses(out, "validation_loss")
    best = seen.index(min(seen))
    assert len(seen) == best + 1 + 3
    assert len(seen) < 20
    assert metrics["best_step"].value == 2 * (best + 1)
    assert metrics["validation_loss"].value == pytest.approx(min(seen), rel=1e-6)


@pytest.mark.parametrize("method", Finetune.techniques())
def test_every_method_ends_at_its_best_or_says_that_it_can_t(base: Path, tmp_path: Path, method: str) -> None:
    """What comes out has the lowest loss there was; what only grows small towards the end is refused before the first step."""
    out, few = tmp_path / "run" / "out", {**STOPPING, "steps": 4, "eval_every": 1, "early_stopping_patience": 1}
    if method in ("adalora", "diff_pruning"):
        with pytest.raises(UserError, match=rf"early_stopping_patience: found 1; {method} cuts .* set it to null"):
            finetuned(base, out, method=method, **few)
        assert not list((out.parent / "work").iterdir())
        return
    metrics = finetuned(base, out, method=method, **few)
    assert metrics["validation_loss"].value == pytest.approx(min(losses(out, "validation_loss")), rel=1e-5)


@pytest.mark.parametrize("stopped_at", [1, 4, 7])
def test_killed_and_stopped_early_ends_in_the_same_bytes(
    base: Path, tmp_path: Path, stopped_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before, between and after the best, or while the result is evaluated: the weights are the same bytes."""
    from tasks.finetune import batches
    from tasks.finetune import run as stage

    straight, killed = tmp_path / "straight" / "out", tmp_path / "killed" / "out"
    finetuned(base, straight, **STOPPING)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "batch", _killing(batches.batch, stopped_at))
        with pytest.raises(KeyboardInterrupt):
            finetuned(base, killed, **STOPPING)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "judge", _killed)
        with pytest.raises(KeyboardInterrupt):
            finetuned(base, killed, **STOPPING)
    finetuned(base, killed, **STOPPING)
    assert (straight / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()


def _killing(batch: Any, at: int) -> Any:
    calls = 0

    def until(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > at + 2:
            raise KeyboardInterrupt
        return batch(*arguments)

    return until


def _killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_early_stopping_needs_chats_to_look_at(base: Path, tmp_path: Path) -> None:
    """No held-out chats: refused in words."""
    import shutil

    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / "data" / "instructions" / "validation.jsonl").write_text("")
    with pytest.raises(UserError, match="no held-out chats"):
        finetuned(tmp_path / "base", tmp_path / "out", early_stopping_patience=1, eval_every=1)
