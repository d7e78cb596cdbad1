"""Rows for finetuning: near-duplicates stay together, and what is left out is counted."""

from __future__ import annotations

import collections
import doctest
import json
import random
import statistics
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.acquire.doctests import Doctests
from tasks.core.errors import UserError
from tasks.data.corpus import survey
from tasks.data.documents import SPLITS, Document
from tasks.data.groups import Groups, normalised
from tasks.data.instructions import Chat, chats
from tasks.data.train import CHATML
from tasks.data.written import Kept
from tests.records import PARAMS, edited, families, jaccard, prompt, rows, stage, write

SAID = {"role": "assistant", "content": "Blue."}


@pytest.mark.parametrize("kind", ["chats", "preferences", "unpaired", "verifiable"])
def test_near_duplicates_never_straddle(tmp_path: Path, kind: str) -> None:
    """Every pair of prompts that are near-duplicates by exact count is on one side, in the rows and in the text."""
    made = families(40, 3)
    records = {
        "chats": made,
        "preferences": [{"prompt": r["prompt"], "chosen": r["completion"], "rejected": "no"} for r in made],
        "unpaired": [{**r, "label": i % 2 == 0} for i, r in enumerate(made)],
        "verifiable": [{"prompt": r["prompt"], "answer": r["completion"]} for r in made],
    }[kind]
    out, metrics = stage(tmp_path, write(tmp_path / "a.jsonl", records))
    found = rows(out, "" if kind == "chats" else kind)
    asked = [
        (split, (row["messages"] if kind == "chats" else row["prompt"])[0]["content"])
        for split, part in found.items()
        for row in part
    ]
    assert {split for split, _ in asked} == set(SPLITS)
    near = [(a, b) for i, a in enumerate(asked) for b in asked[:i] if jaccard(a[1], b[1]) >= 0.7]
    assert len(near) > 60
    assert all(a[0] == b[0] for a, b in near)
    assert metrics["rows_moved"].value
    manifest = json.loads((out / "manifest.json").read_text())
    lines = {f"a.jsonl#{at}": record["prompt"] for at, record in enumerate(records, start=1)}
    side = {lines[path]: split for split, paths in manifest["splits"].items() for path in paths}
    assert all(side[text] == split for split, text in asked)


def test_a_group_keeps_its_side_when_rows_are_appended(tmp_path: Path) -> None:
    """Rows that come later, near-duplicates among them, move nothing that was there."""
    made = families(30, 3)
    sides = []
    for name, count in (("a", 80), ("b", len(made))):
        (tmp_path / name).mkdir()
        out, _ = stage(tmp_path / name, write(tmp_path / name / "a.jsonl", made[:count]))
        manifest = json.loads((out / "manifest.json").read_text())
        sides.append({path: split for split, paths in manifest["splits"].items() for path in paths})
    first, second = sides
    changed = {path for path in first if first[path] != second[path]}
    assert len(changed) <= 2  # only where a new row joins two groups


def test_a_template_makes_no_group() -> None:
    """A long instruction that all prompts share doesn't make them the same; the same question under it does."""
    template = prompt(1, words=120)
    asked = [f"{template} {prompt(i, words=12)}" for i in range(100, 160)]
    groups = Groups(asked)
    for number, text in enumerate([*asked, asked[7].upper()]):
        groups.add(str(number), text)
    groups.close()
    assert groups.leaders() == {"7": "7", "60": "7"}


def test_one_group_can_not_be_split(tmp_path: Path) -> None:
    """Records that all ask the same are refused with the reason."""
    records = [{"prompt": "The same?", "completion": str(i)} for i in range(9)]
    with pytest.raises(UserError, match="near-duplicates"):
        stage(tmp_path, write(tmp_path / "a.jsonl", records))


def test_what_teaches_nothing_is_counted_and_named(tmp_path: Path) -> None:
    """No answer, an empty one, one that the template refuses: left out, in the ledger and row by row in the manifest."""
    fine = [{"messages": [{"role": "user", "content": prompt(i)}, SAID]} for i in range(30)]
    bad = [{"messages": [{"role": "user", "content": prompt(50)}]}]
    bad += [{"messages": [{"role": "user", "content": prompt(51 + i)}, {**SAID, "content": " "}]} for i in range(2)]
    out, metrics = stage(tmp_path, write(tmp_path / "a.jsonl", [*fine, *bad]))
    assert metrics["rows_dropped"].value == 3
    assert metrics["rows_dropped"].note == "2 chats: empty answer, 1 chats: no answer"
    listed = json.loads((out / "manifest.json").read_text())["instructions"]["left_out"]
    assert {row["path"]: row["why"] for row in listed} == {
        "a.jsonl#31": "no answer",
        "a.jsonl#32": "empty answer",
        "a.jsonl#33": "empty answer",
    }
    assert sum(map(len, rows(out).values())) == 30


def test_no_text_is_parsed_for_chats_that_there_is_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a split has its chats its texts aren't looked at, another split's are; what is kept is what all of them begin with."""
    documented = 'def f{0}(x):\n    """Give back what {0} is told."""\n    return x\n'
    texts = [Document(f"{i}.py", documented.format(i) + documented.format(f"{i}_more")) for i in range(9)]
    every = [messages for text in texts for messages in chats(text)]
    looked_at: list[str] = []

    def watched(text: Document) -> Iterator[Chat]:
        looked_at.append(text.path)
        return chats(text)

    monkeypatch.setattr("tasks.data.written.chats", watched)
    kept = Kept(max_bytes=0, max_instructions=5)
    for text in texts:
        kept.take("train", text)
    kept.take("test", texts[8])
    assert looked_at == ["0.py", "1.py", "2.py", "8.py"]
    assert [taken.row["messages"] for taken in kept.rows["chats"]["train"]] == every[:5]
    assert [taken.row["messages"] for taken in kept.rows["chats"]["test"]] == every[16:17]
    assert not kept.why


def test_refused_by_the_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that takes no system text: such chats are left out and counted, the others stay."""
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    monkeypatch.setattr("tasks.data.train.CHATML", strict + CHATML)
    system = {"role": "system", "content": "Be brief."}
    records = [
        {"messages": [system] * (i % 5 == 0) + [{"role": "user", "content": prompt(i)}, SAID]} for i in range(40)
    ]
    out, metrics = stage(tmp_path, write(tmp_path / "a.jsonl", records))
    assert metrics["rows_dropped"].value == 8
    assert metrics["rows_dropped"].note == "8 chats: refused by the chat template"
    assert all(row["messages"][0]["role"] == "user" for part in rows(out).values() for row in part)


def test_chats_of_their_own_source(tmp_path: Path) -> None:
    """With `data.instructions` texts come from one place and chats from the other; neither is in the other."""
    (tmp_path / "texts").mkdir()
    for i in range(12):
        (tmp_path / "texts" / f"{i}.py").write_text(
            f'def f{i}(x):\n    """Return x plus {i}, a number."""\n    return x + {i}\n'
        )
    chats = write(tmp_path / "chats.jsonl", [{"question": prompt(i), "answer": str(i)} for i in range(30)])
    params = PARAMS.model_copy(update={"instructions": str(chats)})
    out, metrics = stage(tmp_path, tmp_path / "texts", params, chats)
    found = rows(out)
    assert sum(map(len, found.values())) == 30
    assert metrics["instructions"].value == len(found["train"])
    assert metrics["documents"].value == 12
    assert "def f" not in json.dumps(found)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [file["path"] for file in manifest["instructions"]["files"]] == ["chats.jsonl"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match=r"data\.instructions: no chat"):
        stage(empty, tmp_path / "texts", params, write(tmp_path / "t.jsonl", [{"text": prompt(i)} for i in range(9)]))


@pytest.mark.parametrize("own", [False, True])
def test_held_out_records_are_marked_where_finetuning_learns_such(tmp_path: Path, own: bool) -> None:
    """Of data.source, when there are no other rows to learn from; of text never."""
    path = write(tmp_path / "a.jsonl", [{"prompt": prompt(i), "completion": "x"} for i in range(30)])
    other = write(tmp_path / "b.jsonl", [{"prompt": prompt(i), "completion": "y"} for i in range(40, 60)])
    made = PARAMS.model_copy(update={"instructions": str(other)}) if own else PARAMS
    out, _ = stage(tmp_path, path, made, other if own else None)
    held = [json.loads(line) for line in (out / "heldout.jsonl").read_text().splitlines()]
    assert held
    assert {row.get("record", False) for row in held} == {not own}


def test_the_shipped_questions_hold(tmp_path: Path) -> None:
    """Every row is a chat and a prompt with its answer, and a session run anew, by itself, shows that answer."""
    Doctests().make(tmp_path)
    corpus = survey(tmp_path / "doctests.jsonl", "text")
    assert corpus.reading.formats == {"doctests.jsonl": "verifiable"}
    made = [document.rows or {} for document in corpus.documents()]
    assert len(made) > 400
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    for number, row in enumerate(made):
        asked, answer = row["verifiable"]["prompt"], row["verifiable"]["answer"]
        assert row["chats"]["messages"] == [*asked, {"role": "assistant", "content": answer}]
        session = f"{asked[0]['content'].partition(chr(10) * 2)[2]}\n{answer}\n"
        if "statistics" in session or "Counter(" in session:
            names = {**vars(statistics), **vars(collections)}
            assert not runner.run(parser.get_doctest(session, names, str(number), None, 0)).failed
    assert runner.tries > 20


def test_normalised_prompts() -> None:
    """Case, white space and width don't make a prompt another; a sign does."""
    assert normalised("What  is\n2 + 2?") == normalised("what is 2 + 2?") == normalised("\uff37hat is 2 + 2?")
    assert normalised("2 + 2") != normalised("2 - 2")


def test_order_of_groups_does_not_matter() -> None:
    """Chains of near-duplicates are one group, whatever comes first."""
    chain = [prompt(3)]
    for seed in range(4):
        chain.append(edited(chain[-1], seed))
    assert all(jaccard(a, b) >= 0.7 for a, b in pairwise(chain))
    for seed in range(5):
        groups = Groups()
        for number in random.Random(seed).sample(range(5), 5):
            groups.add(str(number), chain[number])
        groups.close()
        assert len(set(groups.leaders().values())) == 1
