"""Rows for finetuning that nobody has given are asked for before pretraining, and only where that is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.compatibility import check, check_rows, problems
from tasks.core.errors import UserError
from tests.records import write
from tests.test_compatibility import blueprint, chosen


def test_rows_of_a_kind_nobody_gave_are_asked_for_at_once(tmp_path: Path) -> None:
    """Not after pretraining; what can't be looked at yet is left to the stages."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n", encoding="utf-8")

    def said(objective: str, instructions: Path | str) -> list[str]:
        params = chosen(finetune__objective__method=objective, data__instructions=str(instructions))
        return [line for line in problems(params, blueprint(params)) if line.startswith("finetune.objective.method")]

    assert said("sft", "data/none") == said("dpo", pairs) == said("dpo", tmp_path / "none.jsonl") == []
    (text,), (answers,) = said("dpo", "data/none"), said("sft", pairs)
    assert "learns from preferences, and data.source 'data/stdlib.yaml' holds chats: " in text
    assert text.endswith("or set it to sft")
    assert answers.endswith("holds preferences: name such records in data.instructions, or set it to dpo or orpo")
    assert "learns from verifiable" in said("grpo", pairs)[0]


def made_of(folder: Path, **files: str) -> str:
    """A folder with these files, `__` for a dot in their names."""
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return str(folder)


def test_text_that_no_chats_are_made_of_is_refused_before_pretraining(tmp_path: Path) -> None:
    """Whatever its files are called; with what to set. Where chats are made, or might be, nothing is said."""
    lines = json.dumps({"text": "a"}) + "\n"
    without = [
        made_of(tmp_path / "notes", a__txt="a", b__md="b"),
        made_of(tmp_path / "many", **{f"{i}__txt": "a" for i in range(100)}),
        made_of(tmp_path / "lines", a__jsonl=lines, b__txt="b"),
        made_of(tmp_path / "one", a__py="a = 1"),
    ]
    with_ = [
        made_of(tmp_path / "code", a__py="a = 1", b__md="b", c__py="c = 1"),
        made_of(tmp_path / "both", a__jsonl=lines, b__py="b = 1"),
        made_of(tmp_path / "chats", a__jsonl=json.dumps({"prompt": "a", "completion": "b"})),
        "data/stdlib.yaml",
        "data/wikitext.yaml",
        str(tmp_path / "nowhere"),
    ]

    def said(source: str, **more: Any) -> list[str]:
        params = chosen(data__source=source, **more)
        return problems(params, blueprint(params))

    for source in without:
        (found,) = said(source)
        assert f"learns from chats, and data.source '{source}' holds no records" in found
        assert found.endswith(": set data.instructions to data/doctests.yaml, or finetune.steps to 0")
        assert said(source, finetune__steps=0) == said(source, data__instructions="data/doctests.yaml") == []
        params = chosen(data__source=source)
        check(params, blueprint(params), data=False)
        with pytest.raises(UserError, match=r"finetune\.steps to 0"):
            check_rows("pretrain", params)
        check_rows("data", params)
    assert [said(source) for source in with_] == [[]] * len(with_)
    (found,) = said(without[0], finetune__objective__method="dpo")
    assert found.endswith(": name such records in data.instructions, or set finetune.steps to 0")


def test_a_table_of_text_is_judged_by_its_column_of_paths(tmp_path: Path) -> None:
    """Without one no chats are made; with one they are of Python, and of what comes after the rows looked at nobody knows."""
    for name, paths, none in (("no", ["", ""], True), ("py", ["a.py", "b.md"], False), ("md", ["a.md", "b.md"], False)):
        rows = [{"text": "a"} | ({"path": path} if path else {}) for path in paths]
        params = chosen(data__source=str(write(tmp_path / f"{name}.parquet", rows)))
        assert bool(problems(params, blueprint(params))) == none, name
