"""Raw text in; token shards, held-out text, chat messages and a tokenizer out."""

from __future__ import annotations

import gzip
import json
import lzma
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.data import Data, shards
from tasks.data.contamination import contaminated
from tasks.data.corpus import Corpus, survey
from tasks.data.documents import SPLITS, split
from tasks.data.spill import Spill
from tasks.data.technique import refuse_nothing_left
from tasks.data.written import Kept
from tasks.evaluate import Evaluate
from tasks.models.chat import sizes_of

FILTERS = (
    ("deduplication", "near_duplicates_dropped", ("none", "exact")),
    ("quality", "quality_dropped", ("none",)),
    ("importance", "importance_dropped", ("none",)),
)
"""What drops training documents, in this order; its metric; the methods under which it drops none."""


def run(params: Data, *, source: Path, init: Path, evaluate: Evaluate, out: Path, job: Job) -> Metrics:
    """Write the data every other stage is made of, in memory that doesn't grow with the texts.

    `out` gets: tokenizer/, {train,validation,test}.bin and .index.npy, shards.json, heldout.jsonl, instructions/,
    manifest.json.
    """
    corpus = survey(source, params.text_field, params.max_documents, params.deduplication.technique.identical)
    for problem in corpus.files.unreadable:
        job.say(f"left out {problem}")
    spill = _spill(params, corpus, job.work / "texts")
    dropped, metrics = _drop(params, corpus, spill, job)
    job.say(f"{len(spill)} documents; making the tokenizer ({params.tokenizer.method})")
    tokenizer = params.tokenizer.technique.make(spill.texts("train"), init)
    if tokenizer.eos_token_id is None:
        raise UserError("data.tokenizer: the tokenizer has no end-of-text token (eos_token)")
    tokenizer.save_pretrained(out / "tokenizer")

    job.stop_if_over_budget("making the tokenizer", "this stage begins again")
    kept = Kept(evaluate.max_bytes, params.max_instructions)
    groups = sorted({entry.group for entry in corpus.entries})
    sizes = shards.Shards(out, tokenizer, groups).write(spill, job, kept.watch)
    kind = shards.dtype_of(len(tokenizer))
    _json(out / "shards.json", {"dtype": kind, "vocab_size": len(tokenizer), "splits": sizes, "groups": groups})
    if not kept.heldout:
        raise UserError(
            "the held-out text is empty", "raise evaluate.max_bytes or data.test_fraction, or add documents"
        )
    _jsonl(out / "heldout.jsonl", ({"text": text} for text in kept.heldout))
    _write_chats(params, kept, out / "instructions", tokenizer)
    shared, overlap = _contamination(params, spill, job)
    _json(out / "manifest.json", _manifest(corpus, spill, dropped, shared))
    spill.remove()
    counts = _counts(corpus, sizes, len(kept.chats["train"]))
    return {**counts, **metrics, **overlap, **_floors("".join(kept.heldout).encode())}


def _spill(params: Data, corpus: Corpus, folder: Path) -> Spill:
    parts = split(corpus.entries, params.validation_fraction, params.test_fraction)
    split_of = {entry.path: name for name, entries in parts.items() for entry in entries}
    spill = Spill(folder, split_of, sum(entry.size for entry in corpus.entries))
    spill.fill(corpus.documents())
    return spill


def _drop(params: Data, corpus: Corpus, spill: Spill, job: Job) -> tuple[dict[str, dict[str, str]], Metrics]:
    """Path -> why by technique, after every technique that drops training documents had its say."""
    size_of = {entry.path: entry.size for entry in corpus.entries}
    dropped, metrics, lost = dict[str, dict[str, str]](), Metrics(), 0
    for name, metric, idle in FILTERS:
        choice = getattr(params, name)
        if choice.method in idle:
            continue
        found = choice.technique.drops(spill)
        spill.dropped |= found.keys()
        kept = sum(s == "train" and path not in spill.dropped for path, s in spill.split_of.items())
        refuse_nothing_left(f"data.{name}", kept)
        size = sum(size_of[path] for path in found)
        reasons = Counter("near-duplicate" if name == "deduplication" else why for why in found.values())
        said = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items())) or "none"
        job.say(f"{name} ({choice.method}) dropped {len(found)} training documents, {size} bytes ({said}); {kept} stay")
        dropped[name] = found
        metrics[metric] = counted(len(found), f"{choice.method}: {said}; {kept} training documents stay")
        lost += size
        job.stop_if_over_budget(f"data.{name}", "this stage begins again")
    if dropped:
        metrics["bytes_dropped"] = counted(lost, ", ".join(dropped))
    return dropped, metrics


def _contamination(params: Data, spill: Spill, job: Job) -> tuple[list[str], Metrics]:
    n = params.contamination_ngram
    if n is None:
        return [], {}
    shared, looked_at = contaminated(spill, n)
    said = f"of {looked_at} test documents, by {n} words in a row"
    job.say(f"{len(shared)} {said} are also in the training text (listed in manifest.json)")
    return shared, {"contaminated_documents": counted(len(shared), said)}


def _counts(corpus: Corpus, sizes: dict[str, dict[str, int]], chats: int) -> Metrics:
    test = sizes["test"]
    return {
        "documents": counted(sum(size["documents"] for size in sizes.values())),
        "duplicates_dropped": counted(corpus.duplicates),
        "unreadable_dropped": counted(len(corpus.files.unreadable)),
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


def _write_chats(params: Data, kept: Kept, folder: Path, tokenizer: Any) -> None:
    """The chats of every split, and how long each is, from which the cost of training on them can be told."""
    folder.mkdir()
    for name, chats in kept.chats.items():
        _jsonl(folder / f"{name}.jsonl", ({"messages": chat} for chat in chats))
    sizes = {name: sizes_of(chats, tokenizer) for name, chats in kept.chats.items()}
    _json(folder / "sizes.json", {"of": params.identity, "tokens_and_labelled": sizes}, indent=None)


def _manifest(corpus: Corpus, spill: Spill, dropped: dict[str, dict[str, str]], shared: list[str]) -> dict[str, Any]:
    splits: dict[str, dict[str, str]] = {name: {} for name in SPLITS}
    for entry in corpus.entries:
        if entry.path not in spill.dropped:
            splits[spill.split_of[entry.path]][entry.path] = entry.digest.hex()
    return {
        "files": corpus.files.described,
        "left_out": corpus.files.unreadable,
        "dropped": dropped,
        "contaminated": shared,
        "splits": splits,
    }


def _json(path: Path, value: Any, indent: int | None = 1) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=indent, ensure_ascii=False)
        file.write("\n")


def _jsonl(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
