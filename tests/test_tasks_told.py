"""What a figure of quality says of itself: what it is no measure of, and why it is what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.evaluate import Evaluate
from tasks.evaluate.judge import judge
from tasks.models.load import new_model, save_model
from tests.models import TEXTS, config, job, tokenizer

PARAMS = Evaluate(context_length=64, sample_tokens=4, batch_size=4)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What data and pretrain leave, tiny, without held-out text."""
    save_model(new_model(config(max_position_embeddings=256), seed=0), tokenizer(), tmp_path / "pretrain")
    folder = tmp_path / "data" / "instructions"
    folder.mkdir(parents=True)
    for name in ("train", "validation", "test"):
        (folder / f"{name}.jsonl").write_text("")
    return tmp_path


def test_held_out_records_are_no_text_that_is_forgotten(place: Path) -> None:
    """Where finetuning learns records like the held-out ones the figure's note says so, and what to set; else it doesn't."""
    base, notes = place / "pretrain", []
    for rows in ([{"text": TEXTS[0]}], [{"text": "a" * 30}, {"text": "b" * 10, "record": True}]):
        (place / "data" / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        notes.append(judge(base, place / "data", PARAMS, job(place), before=base)["forgetting_bits_per_byte"].note)
    assert "records" not in notes[0]
    assert "25% of the held-out text are records" in notes[1]
    assert "data.instructions" in notes[1]
