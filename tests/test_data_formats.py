"""Records of every format: what they become, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.data.corpus import survey
from tasks.data.formats import FORMATS
from tests.records import documents, write

USER, SAID = {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue."}
WORSE = {"role": "assistant", "content": "No."}
CHAT = {"chats": {"messages": [USER, SAID]}}
PAIR = {"preferences": {"prompt": [USER], "chosen": [SAID], "rejected": [WORSE]}}
LIKED = {"unpaired": {"prompt": [USER], "completion": [SAID], "label": True}}
DISLIKED = {"unpaired": {"prompt": [USER], "completion": [SAID], "label": False}}
CHECKED = {"verifiable": {"prompt": [USER], "answer": "Blue."}}
Q, A = USER["content"], SAID["content"]
SPLIT_QUESTION = {"chats": {"messages": [{"role": "user", "content": "Name\n\na colour."}, SAID]}}
SHARED = [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]

READ: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("messages", {"messages": [USER, SAID]}, CHAT),
    ("prompt_completion", {"prompt": Q, "completion": A}, CHAT),
    ("prompt_completion", {"prompt": [USER], "completion": [SAID]}, CHAT),
    ("alpaca", {"instruction": Q, "input": "", "output": A}, CHAT),
    ("alpaca", {"instruction": "Name", "output": A, "input": "a colour."}, SPLIT_QUESTION),
    ("sharegpt", {"conversations": SHARED}, CHAT),
    ("sharegpt", {"conversations": [USER, SAID], "system": None}, CHAT),
    ("question_answer", {"question": Q, "answer": A}, CHAT),
    ("preference", {"prompt": Q, "chosen": A, "rejected": "No."}, PAIR),
    ("preference", {"prompt": [USER], "chosen": [SAID], "rejected": [WORSE]}, PAIR),
    ("preference", {"chosen": [USER, SAID], "rejected": [USER, WORSE]}, PAIR),
    ("preference", {"prompt": Q, "chosen": [USER, SAID], "rejected": [USER, WORSE], "messages": [USER, SAID]}, PAIR),
    ("unpaired", {"prompt": Q, "completion": A, "label": True}, LIKED),
    ("unpaired", {"prompt": Q, "completion": A, "label": 1.0}, LIKED),
    ("unpaired", {"prompt": Q, "completion": A, "label": 0.0}, DISLIKED),
    ("verifiable", {"prompt": Q, "answer": A}, CHECKED),
    ("verifiable", {"messages": [USER], "answer": " Blue.\n"}, CHECKED),
    ("verifiable", {"messages": [USER, SAID], "answer": A}, CHAT | CHECKED),
    ("verifiable", {"prompt": Q, "completion": A, "answer": A}, CHAT | CHECKED),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@pytest.mark.parametrize(("name", "record", "expected"), READ)
def test_every_format_is_recognised_in_every_file(
    tmp_path: Path, suffix: str, name: str, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    """By its fields alone, and the same where it is named; three rows, the same row each."""
    path = write(tmp_path / f"a{suffix}", [record] * 3)
    corpus = survey(path, "text", identical=False)
    assert corpus.reading.formats == {path.name: name}
    found = list(corpus.documents())
    assert [document.rows for document in found] == [expected] * 3
    assert found == documents(path, wanted=name)
    assert all(Q.split()[0] in document.text for document in found)


def test_every_format_is_tested() -> None:
    """No format without an example of what it reads, and one of what it refuses."""
    assert {name for name, _, _ in READ} | {"text"} == set(FORMATS)
    assert {name for name, _, _, _ in WRONG} == set(FORMATS)


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("text", {"text": None}, "'text'", "null"),
    ("text", {"text": 3}, "'text'", "a number"),
    ("messages", {"messages": "hello"}, "'messages'", "'hello'"),
    ("messages", {"messages": []}, "'messages'", "an empty list"),
    ("messages", {"messages": ["hello"]}, r"'messages\[0\]'", "'hello'"),
    ("messages", {"messages": [{"role": "user"}]}, r"'messages\[0\].content'", "no such key"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": None}]}, r"'messages\[1\].content'", "null"),
    ("messages", {"messages": [{"role": "robot", "content": "x"}]}, r"'messages\[0\].role'", "unknown role 'robot'"),
    ("messages", {"messages": [{"role": "user", "content": " "}]}, r"'messages\[0\].content'", "empty text"),
    ("messages", {"messages": [SAID, USER]}, r"'messages\[0\]'", "role assistant after nothing"),
    ("messages", {"messages": [USER, USER]}, r"'messages\[1\]'", "role user after user"),
    ("messages", {"messages": [USER, SAID, SAID]}, r"'messages\[2\]'", "role assistant after assistant"),
    (
        "messages",
        {"messages": [USER, {"role": "system", "content": "x"}]},
        r"'messages\[1\]'",
        "role system after user",
    ),
    ("messages", {"messages": [{"role": "system", "content": "x"}]}, "'messages'", "a system message alone"),
    ("prompt_completion", {"prompt": Q, "completion": None}, "'completion'", "null"),
    ("prompt_completion", {"prompt": "", "completion": A}, "'prompt'", "empty text"),
    ("prompt_completion", {"prompt": [USER, SAID], "completion": A}, r"'prompt\[1\]'", "role assistant at the end"),
    ("prompt_completion", {"prompt": [USER], "completion": [USER]}, r"'completion\[0\]'", "role user"),
    ("alpaca", {"instruction": 5, "output": A}, "'instruction'", "a number"),
    ("alpaca", {"instruction": Q, "output": A, "input": []}, "'input'", "an empty list"),
    ("sharegpt", {"conversations": [{"from": "alien", "value": "x"}]}, r"'conversations\[0\].from'", "'alien'"),
    ("sharegpt", {"conversations": [{"from": "gpt", "value": "x"}]}, r"'conversations\[0\]'", "role assistant"),
    ("question_answer", {"question": "\n", "answer": A}, "'question'", "empty text"),
    ("preference", {"prompt": Q, "chosen": A, "rejected": None}, "'rejected'", "null"),
    ("preference", {"chosen": A, "rejected": "No."}, "'prompt'", "no such field"),
    ("preference", {"chosen": [USER, SAID], "rejected": [{**USER, "content": "?"}, SAID]}, "'rejected'", "beginning"),
    ("preference", {"prompt": "?!", "chosen": [USER, SAID], "rejected": [USER, WORSE]}, "'prompt'", "another text"),
    ("unpaired", {"prompt": Q, "completion": A, "label": "maybe"}, "'label'", "'maybe'"),
    ("unpaired", {"prompt": Q, "completion": A, "label": 0.5}, "'label'", "a number"),
    ("unpaired", {"prompt": Q, "completion": A, "label": None}, "'label'", "null"),
    ("verifiable", {"prompt": Q, "answer": {"x": 1}}, "'answer'", "an object"),
    ("verifiable", {"messages": [SAID], "answer": A}, r"'messages\[0\]'", "role assistant after nothing"),
]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(("name", "record", "field", "found"), WRONG)
def test_mistakes_name_file_row_field(
    tmp_path: Path, named: bool, name: str, record: dict[str, Any], field: str, found: str
) -> None:
    """The second row of a good file is wrong: the error says where, what was found and what is expected."""
    good = next((given for known, given, _ in READ if known == name), {"text": "fine"})
    path = write(tmp_path / "a.jsonl", [good, record])
    with pytest.raises(UserError, match=rf"^a\.jsonl, line 2, field {field}: found .*{found}.*; expected ") as caught:
        documents(path, wanted=name if named else "auto")
    assert "Traceback" not in str(caught.value)


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "empty file"),
        ("a.jsonl", '{"prompt": "é", "completion": "x"}'.encode("latin-1"), "not UTF-8"),
        ("a.json", b'{"prompt": "x"}', "not a list of records"),
        ("a.json", b'[{"prompt": "x", "completion": "y"}, {"prompt"]', "row 2: not valid JSON"),
        ("a.json", b'[{"prompt": "x", "completion": "y"} {}]', "row 1: not valid JSON"),
        ("a.json", b'[{"prompt": "x", "completion": "y"}', "not valid JSON"),
        ("a.json", b'[{"prompt": "x", "completion": "y"}] []', "something follows"),
        ("a.json", b"[1, 2]", "row 1: expected an object"),
        ("a.csv", b"prompt,completion\nx,y\nx,y,z\n", r"row 2 \(line 3\): 3 cells, but the header has 2"),
        ("a.csv", b"prompt,prompt\nx,y\n", "two columns of one name"),
        ("a.csv", b'prompt,completion\nx,"y\n', "not valid CSV"),
        ("a.csv", b"prompt;completion\nx;y\n", "no known format"),
        ("a.csv", b'messages\n"[{""role"": ]"\n', "row 1 .*aren't valid JSON"),
        ("a.csv", b'prompt,completion\n"[{""content"": ""x""}]",y\n', r"row 1 .*'prompt\[0\].role'.*no such key"),
        ("a.jsonl", DEEP + b"\n", "line 1: not valid JSON .nested too deeply"),
        ("a.json", b'[{"prompt": "x", "completion": "y"}, ' + DEEP + b"]", "row 2: not valid JSON .nested too deeply"),
        ("a.csv", b'messages\n"[{""x"": ' + DEEP + b'}]"\n', "row 1 .*nested too deeply"),
        ("a.jsonl", b'{"instruction": "x"}\n', "its fields: instruction"),
        ("a.jsonl", b'{"prompt": "x", "completion": "y"}\n{"instruction": "x", "output": "y"}\n', "line 2: .*alpaca"),
        ("a.jsonl", b'{"text": "x"}\n{"prompt": "x", "completion": "y"}\n', "line 2: .*one|line 2: .*text"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """Nothing in it, another encoding, another grammar, unknown fields, two formats in one."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        documents(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["[{x}] means a set in a list?", '[{"year": 2001}]', "[{}]", '[{"a": ' + "[" * 100_000]
)
def test_a_cell_may_begin_like_a_list_of_messages(tmp_path: Path, text: str) -> None:
    """A question, an answer or either side of a pair that is other JSON, or none, is the text it is."""
    for record, row in (
        ({"prompt": text, "completion": text}, {"messages": [USER | {"content": text}, SAID | {"content": text}]}),
        (
            {"prompt": Q, "chosen": text, "rejected": f"{text}!"},
            {"prompt": [USER], "chosen": [SAID | {"content": text}], "rejected": [SAID | {"content": f"{text}!"}]},
        ),
    ):
        found = documents(write(tmp_path / "a.csv", [record] * 3))
        assert [list((document.rows or {}).values()) for document in found] == [[row]] * 3


def test_a_list_longer_than_what_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON list is cut anywhere by reading and is still the same, with every line end inside."""
    records = [{"prompt": f"{i} {{[,]}}\n" + "é" * i, "completion": str(i)} for i in range(40)]
    path = write(tmp_path / "a.json", records)
    whole = documents(path)
    for chunk in (1, 7, 64):
        monkeypatch.setattr("tasks.data.records.CHUNK", chunk)
        assert documents(path) == whole
    assert [d.text for d in whole] == [f"{r['prompt']}\n\n{r['completion']}" for r in records]


def test_notes_beside_texts_are_not_read(tmp_path: Path) -> None:
    """`.json` and `.csv` beside text or Python are settings; alone in a folder they are the source."""
    write(tmp_path / "a.json", [{"prompt": f"q{i}", "completion": "x"} for i in range(3)])
    assert len(documents(tmp_path)) == 3
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    assert {document.text for document in documents(tmp_path)} == {"a", "b", "c"}
