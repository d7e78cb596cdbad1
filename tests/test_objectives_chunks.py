"""Objectives that compute logits a few tokens at a time learn what they would from all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.models.load import new_model
from tasks.training.kernels import cross_entropy
from tests.models import config
from tests.test_objectives_distillation import TEACHER, begun, computed


@pytest.mark.parametrize("top_k", [None, 8])
def test_chunks_and_the_whole_learn_the_same(
    tmp_path: Path, top_k: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of a few tokens at a time: what is shown and every gradient is that of all at once."""
    teacher = tmp_path / "teacher"
    new_model(config(**TEACHER), seed=3).save_pretrained(teacher)
    whole, reference = computed(begun(teacher, tmp_path / "a", temperature=2.0, top_k=top_k))
    monkeypatch.setattr(cross_entropy, "FEWEST", 5)
    monkeypatch.setattr(cross_entropy, "LOGITS", 0)
    again, found = computed(begun(teacher, tmp_path / "b", temperature=2.0, top_k=top_k))
    assert again == pytest.approx(whole, rel=1e-5)
    assert all(value.allclose(found[name], rtol=1e-4, atol=1e-7) for name, value in reference.items())
