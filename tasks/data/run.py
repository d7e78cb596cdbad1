"""Raw text in; token shards, held-out text, chat messages and a tokenizer out."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.data import Data, instructions, shards
from tasks.data.documents import Corpus, Document, read, split
from tasks.evaluate import Evaluate
from tasks.models.chat import sizes_of


def run(params: Data, *, source: Path, init: Path, evaluate: Evaluate, out: Path, job: Job) -> Metrics:
    """Write the data every other stage is made of.

    `out` gets: tokenizer/, {train,validation,test}.bin, shards.json, heldout.jsonl, instructions/, manifest.json.
    """
    corpus = read(source, params.text_field, params.max_documents)
    for problem in corpus.unreadable:
        job.say(f"left out {problem}")
    parts = split(corpus.documents, params.validation_fraction, params.test_fraction)
    job.say(f"{len(corpus.documents)} documents; making the tokenizer ({params.tokenizer.method})")
    tokenizer = params.tokenizer.technique.make((d.text for d in parts["train"]), init)
    if tokenizer.eos_token_id is None:
        raise UserError("data.tokenizer: the tokenizer has no end-of-text token (eos_token)")
    tokenizer.save_pretrained(out / "tokenizer")

    job.stop_if_over_budget("making the tokenizer", "this stage begins again")
    sizes = {name: shards.write(out / f"{name}.bin", rows, tokenizer, job) for name, rows in parts.items()}
    kind = shards.dtype_of(len(tokenizer))
    _json(out / "shards.json", {"dtype": kind, "vocab_size": len(tokenizer), "splits": sizes})
    heldout = _heldout(parts["test"], evaluate.max_bytes)
    if not heldout:
        raise UserError(
            "the held-out text is empty", "raise evaluate.max_bytes or data.test_fraction, or add documents"
        )
    _jsonl(out / "heldout.jsonl", ({"text": text} for text in heldout))
    chats = _write_chats(params, parts, out / "instructions", tokenizer)
    _json(out / "manifest.json", _manifest(corpus, parts))
    return {**_counts(corpus, sizes, chats), **_floors("".join(heldout).encode())}


def _counts(corpus: Corpus, sizes: dict[str, dict[str, int]], chats: int) -> Metrics:
    test = sizes["test"]
    return {
        "documents": counted(len(corpus.documents)),
        "duplicates_dropped": counted(corpus.duplicates),
        "unreadable_dropped": counted(len(corpus.unreadable)),
        "train_bytes": counted(sizes["train"]["bytes"]),
        "train_tokens": counted(sizes["train"]["tokens"]),
        "bytes_per_token": counted(test["bytes"] / test["tokens"], "test split"),
        "instructions": counted(chats, "train split"),
    }


def _floors(content: bytes) -> Metrics:
    """What two compressors need for the very bytes the models are scored on."""
    bits = 8 / len(content)
    note = f"{len(content)} held-out bytes"
    return {
        "gzip_bits_per_byte": measured(len(gzip.compress(content, 9, mtime=0)) * bits, note),
        "xz_bits_per_byte": measured(len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)) * bits, note),
    }


def _heldout(documents: list[Document], max_bytes: int) -> list[str]:
    """The first `max_bytes` of the test split in order of the paths' hash; the last text is cut at a character."""
    kept, left = [], max_bytes
    for document in documents:
        content = document.text.encode()[:left]
        text = content.decode(errors="ignore")
        if text:
            kept.append(text)
        left -= len(content)
        if left <= 0:
            break
    return kept


def _write_chats(params: Data, parts: dict[str, list[Document]], folder: Path, tokenizer: Any) -> int:
    """The chats of every split, and how long each is, from which the cost of training on them can be told."""
    folder.mkdir()
    kept, sizes = 0, {}
    for name, documents in parts.items():
        limit = params.max_instructions if name == "train" else max(1, params.max_instructions // 20)
        chats = instructions.chats(documents, limit)
        _jsonl(folder / f"{name}.jsonl", ({"messages": chat} for chat in chats))
        sizes[name] = sizes_of(chats, tokenizer)
        kept = len(chats) if name == "train" else kept
    _json(folder / "sizes.json", {"of": params.identity, "tokens_and_labelled": sizes}, indent=None)
    return kept


def _manifest(corpus: Corpus, parts: dict[str, list[Document]]) -> dict[str, Any]:
    return {
        "files": corpus.files,
        "left_out": corpus.unreadable,
        "splits": {name: {d.path: d.sha256 for d in documents} for name, documents in parts.items()},
    }


def _json(path: Path, value: Any, indent: int | None = 1) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")


def _jsonl(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
