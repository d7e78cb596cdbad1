"""Stage data: what is read, how it is split, what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import UserError
from tasks.data import Data, Tokenizer
from tasks.data.corpus import survey
from tasks.data.documents import Document, split
from tasks.data.instructions import docstring_chats
from tasks.data.run import run
from tasks.data.train import Train
from tasks.evaluate import Evaluate
from tests.models import job

PARAMS = Data(
    validation_fraction=0.1, test_fraction=0.2, tokenizer=Tokenizer(train=Train(vocab_size=320, max_bytes=10_000))
)


def folder(root: Path, **files: str | bytes) -> Path:
    """A source folder with these files."""
    source = root / "source"
    source.mkdir()
    for name, content in files.items():
        path = source / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return source


def many(count: int = 40) -> dict[str, str]:
    """Small distinct Python files."""
    body = 'def f{0}(x):\n    """Return x plus {0}, as an integer."""\n    return x + {0}\n'
    return {f"m{i}__py": body.format(i) * 3 for i in range(count)}


def texts(source: Path) -> list[str]:
    """The texts a source is kept as, sorted."""
    return sorted(document.text for document in survey(source, "text").documents())


def test_shards_hold_every_byte(tmp_path: Path) -> None:
    """Decoding the shards gives the documents back, byte for byte, split as the manifest says."""
    from transformers import AutoTokenizer

    source, out = folder(tmp_path, **many()), tmp_path / "out"
    out.mkdir()
    metrics = run(PARAMS, source=source, init=tmp_path, evaluate=Evaluate(max_bytes=300), out=out, job=job(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(out / "tokenizer")
    shards = json.loads((out / "shards.json").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    for name, paths in manifest["splits"].items():
        ids = np.fromfile(out / f"{name}.bin", dtype=shards["dtype"])
        assert len(ids) == shards["splits"][name]["tokens"]
        texts = tokenizer.decode(ids).split("<|endoftext|>")[:-1]
        assert texts == [(source / path).read_text() for path in paths]
        assert list(paths.values()) == [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    held = "".join(json.loads(line)["text"] for line in (out / "heldout.jsonl").read_text().splitlines())
    assert len(held.encode()) == 300
    assert metrics["train_bytes"].value == shards["splits"]["train"]["bytes"]


def test_same_input_same_bytes(tmp_path: Path) -> None:
    """Two runs on the same files write the same bytes."""
    source = folder(tmp_path, **many())
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        out.mkdir()
        run(PARAMS, source=source, init=tmp_path, evaluate=Evaluate(), out=out, job=job(tmp_path))
    names = sorted(p.relative_to(outs[0]) for p in outs[0].rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(outs[1]) for p in outs[1].rglob("*") if p.is_file())
    assert all((outs[0] / name).read_bytes() == (outs[1] / name).read_bytes() for name in names)


def test_split_does_not_depend_on_others() -> None:
    """A document stays on its side when other documents come."""
    documents = [Document(f"file{i}.py", str(i)) for i in range(300)]
    few, all_of_them = split(documents[:150], 0.1, 0.2), split(documents, 0.1, 0.2)
    for name, members in few.items():
        assert set(members) <= set(all_of_them[name])


def test_duplicates_are_dropped(tmp_path: Path) -> None:
    """The same text under two names is kept once and counted."""
    source = folder(tmp_path, a__txt="one", b__txt="one", c__txt="two", d__txt="three")
    assert survey(source, "text").duplicates == 1
    assert texts(source) == ["one", "three", "two"]


def test_bad_files_are_left_out_and_named(tmp_path: Path) -> None:
    """An empty, a binary and a wrongly encoded file among good ones are left out, each with its reason."""
    bad = {"empty__txt": b"", "binary__txt": b"\x7fELF\0\0", "latin__txt": "naïve".encode("latin-1")}
    corpus = survey(folder(tmp_path, **many(5), **bad), "text")
    assert len(corpus.entries) == len(list(corpus.documents())) == 5
    assert {line.split(":")[0] for line in corpus.files.unreadable} == {"empty.txt", "binary.txt", "latin.txt"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no .txt"),
        ({"a__txt": ""}, "empty file"),
        ({"a__txt": b"\0\1\2"}, "binary"),
        ({"a__txt": "é".encode("latin-1")}, "not UTF-8"),
        ({"a__txt": "one sample only"}, "found 1 document"),
        ({"a__parquet": b"no parquet"}, "not a Parquet file"),
        ({"a__jsonl": '{"text": "x"}\n{"body": "y"}'}, "line 2"),
        ({"a__jsonl": '{"text": "x"}\n{bad'}, "line 2: not valid JSON"),
        ({"a__jsonl": '{"messages": [{"role": "user"}]}'}, r"'messages\[0\].content'"),
    ],
)
def test_bad_sources_are_refused_in_words(tmp_path: Path, files: dict[str, str | bytes], said: str) -> None:
    """A source nothing can be made of is refused with the reason."""
    with pytest.raises(UserError, match=said):
        survey(folder(tmp_path, **files), "text")


def test_missing_source_is_named(tmp_path: Path) -> None:
    """A folder that isn't there is named."""
    with pytest.raises(UserError, match="nowhere"):
        survey(tmp_path / "nowhere", "text")


def test_missing_column_lists_the_others(tmp_path: Path) -> None:
    """A Parquet file without the text column: the error lists those it has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"body": ["a", "b", "c"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="body"):
        survey(tmp_path / "a.parquet", "text")


def test_formats_meet_in_documents(tmp_path: Path) -> None:
    """JSON Lines and Parquet with the same texts give the same documents; messages become chats."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = ["one", "two", "three"]
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in rows))
    found = [texts(tmp_path / name) for name in ("a.parquet", "a.jsonl")]
    assert found[0] == found[1] == sorted(rows)


def test_docstrings_become_chats() -> None:
    """The question holds the code without its docstring, the answer is the docstring's first line."""
    source = 'def area(r):\n    """Area of a circle of radius r.\n\n    More."""\n    return 3.14 * r * r\n'
    ((question, answer),) = docstring_chats(source)
    assert answer["content"] == "Area of a circle of radius r."
    assert "return 3.14 * r * r" in question["content"]
    assert "Area of" not in question["content"]
    assert not list(docstring_chats("def broken(:"))


def test_records_as_the_web_has_them(tmp_path: Path) -> None:
    """Odd line separators, a byte-order mark, half an emoji, empty texts and one path for all: every record is its own."""
    rows = [{"text": "one\u2028two"}, {"text": "half \ud83d"}, {"text": " "}, {"text": "three"}]
    content = "\n".join(json.dumps(row, ensure_ascii=i == 1) for i, row in enumerate(rows))
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + content.encode())
    found = texts(tmp_path / "a.jsonl")
    assert set(found) == {"one\u2028two", "half ?", "three"}


def test_one_path_for_many_rows(tmp_path: Path) -> None:
    """Rows that share a path are still split apart, and the manifest can name each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [f"text {i}" for i in range(100)]
    pq.write_table(pa.table({"text": rows, "path": ["same"] * 100}), tmp_path / "a.parquet")
    documents = survey(tmp_path / "a.parquet", "text").entries
    assert len({d.path for d in documents}) == 100
    assert all(len(part) > 3 for part in split(documents, 0.2, 0.2).values())
