"""What is predicted of records before the data stage has read them, held against what it then writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.ledger.predict import chats, constants
from tasks.ledger.predict.data import available_chats
from tasks.ledger.predict.rows import rows_in, sampled_sizes
from tasks.ledger.predict.subject import subject
from tasks.params import Params
from tests.models import MACHINE
from tests.records import PARAMS, prompt, stage, write

ROOT = Path(__file__).resolve().parent.parent
STEPS = {"steps": 20, "batch_size": 4, "context_length": 512}


def planned(source: Path, **more: Any) -> Params:
    """A small lifecycle on this source."""
    data = PARAMS.model_dump(mode="json") | {"source": str(source)} | more
    return Params.model_validate({"data": data, "finetune": STEPS})


def test_batches_of_records_are_known_before_and_exact_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a sample the tokens of a run are right within a tenth; once the stage has run they are its own."""
    path = write(
        tmp_path / "a.jsonl", [{"question": prompt(i, words=20 + i % 40), "answer": prompt(i, 8)} for i in range(200)]
    )
    monkeypatch.chdir(tmp_path)
    params = planned(path)
    assert rows_in(params.data) == 200
    before = chats.batches(subject(params, MACHINE))
    assert "first 200 records" in before.note
    out, _ = stage(tmp_path, path, params.data)
    (tmp_path / "artifacts").mkdir()
    out.rename(tmp_path / "artifacts" / "data")
    after = chats.batches(subject(params, MACHINE))
    assert after.note == "the chats themselves"
    sizes = json.loads((tmp_path / chats.SIZES).read_text())["tokens_and_labelled"]
    assert sum(map(len, sizes.values())) == 200
    assert before.row == pytest.approx(after.row, rel=0.1)
    assert before.labelled == pytest.approx(after.labelled, rel=0.1)


def test_text_has_no_rows(tmp_path: Path) -> None:
    """Text, and what isn't there, is left to the typical chats; what is wrong with records is left to the stage."""
    write(tmp_path / "t.jsonl", [{"text": f"text {i}"} for i in range(5)])
    (tmp_path / "broken.jsonl").write_text("{\n")
    for name in ("t.jsonl", "broken.jsonl", "nowhere"):
        params = planned(tmp_path / name)
        assert rows_in(params.data) is None
        assert not sampled_sizes(params.data, 4.0)
    with pytest.raises(UserError, match="nowhere"):
        subject(planned(tmp_path / "nowhere"), MACHINE)


def test_chats_of_their_own_are_counted(tmp_path: Path) -> None:
    """Chats from elsewhere are as many as their records, whatever the text holds, and its bytes stay the text's."""
    (tmp_path / "t.txt").write_text("some words\n" * 50_000)
    path = write(tmp_path / "c.jsonl", [{"question": prompt(i), "answer": "x"} for i in range(500)])
    without, beside = (
        subject(planned(tmp_path / "t.txt", instructions=source), MACHINE) for source in ("data/none", str(path))
    )
    assert (without.raw_bytes, without.documents) == (beside.raw_bytes, beside.documents)
    assert available_chats(beside) == 500
    shipped = planned(tmp_path / "t.txt", instructions=str(ROOT / "data" / "doctests.yaml"))
    assert available_chats(subject(shipped, MACHINE)) == constants.DOCTESTS
