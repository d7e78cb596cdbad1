"""Raw text in; token shards, held-out text, chat messages and a tokenizer out."""

from __future__ import annotations

import gzip
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.data import NONE, Data, finetuning, shards
from tasks.data.contamination import contaminated
from tasks.data.corpus import Corpus
from tasks.data.documents import SPLITS, Document
from tasks.data.jsonfiles import write_json, write_jsonl
from tasks.data.source import Source, opened
from tasks.data.spill import Spill
from tasks.data.technique import refuse_nothing_left
from tasks.data.written import Kept
from tasks.evaluate import Evaluate

FILTERS = (
    ("deduplication", "near_duplicates_dropped", ("none", "exact")),
    ("quality", "quality_dropped", ("none",)),
    ("importance", "importance_dropped", ("none",)),
)
"""What drops training documents, in this order; its metric; the methods under which it drops none."""


def run(
    params: Data,
    *,
    source: Path,
    init: Path,
    evaluate: Evaluate,
    out: Path,
    job: Job,
    instructions: Path | None = None,
) -> Metrics:
    """Write the data every other stage is made of, in memory that grows by an entry per document, not with the texts.

    `out` gets: tokenizer/, {train,validation,test}.bin and .index.npy, shards.json, heldout.jsonl, instructions/,
    manifest.json.
    """
    own, wanted = instructions is not None and params.instructions != NONE, params.format
    text = opened(params, source, job.work / "texts", job, wanted="auto" if own else wanted)
    chats = (
        opened(params, instructions, job.work / "chats", job, "instructions", wanted) if own and instructions else None
    )
    corpus, spill = text.corpus, text.spill
    dropped, metrics = _drop(params, corpus, spill, job)
    tokenizer = _tokenizer(params, spill, init, out, job)
    kept = Kept(evaluate.max_bytes, params.max_instructions)
    sizes = _shards(corpus, spill, tokenizer, out, job, kept.hold if chats else kept.watch)
    _write_heldout(kept, out)
    moved = _rows(params, kept, text, chats, tokenizer, out)
    shared, overlap = _contamination(params, spill, job)
    listed = finetuning.manifest(kept, moved, chats)
    write_json(out / "manifest.json", _manifest(corpus, spill, dropped, shared) | listed)
    spill.remove()
    rows = finetuning.counts(kept, len(moved), job)
    return {
        **_counts(corpus, sizes),
        **rows,
        **metrics,
        **overlap,
        **_floors("".join(row["text"] for row in kept.heldout).encode()),
    }


def _tokenizer(params: Data, spill: Spill, init: Path, out: Path, job: Job) -> Any:
    job.say(f"{len(spill)} documents; making the tokenizer ({params.tokenizer.method})")
    tokenizer = params.tokenizer.technique.make(spill.texts("train"), init)
    if tokenizer.eos_token_id is None:
        raise UserError("data.tokenizer: the tokenizer has no end-of-text token (eos_token)")
    tokenizer.save_pretrained(out / "tokenizer")
    job.stop_if_over_budget("making the tokenizer", "this stage begins again")
    return tokenizer


def _shards(
    corpus: Corpus, spill: Spill, tokenizer: Any, out: Path, job: Job, watch: Callable[[str, Document], None]
) -> dict[str, dict[str, int]]:
    groups = sorted({entry.group for entry in corpus.entries})
    sizes = shards.Shards(out, tokenizer, groups).write(spill, job, watch)
    kind = shards.dtype_of(len(tokenizer))
    write_json(out / "shards.json", {"dtype": kind, "vocab_size": len(tokenizer), "splits": sizes, "groups": groups})
    return sizes


def _write_heldout(kept: Kept, out: Path) -> None:
    if not kept.heldout:
        raise UserError(
            "the held-out text is empty", "raise evaluate.max_bytes or data.test_fraction, or add documents"
        )
    write_jsonl(out / "heldout.jsonl", kept.heldout)


def _rows(
    params: Data, kept: Kept, text: Source, chats: Source | None, tokenizer: Any, out: Path
) -> list[dict[str, str]]:
    """Write the rows for finetuning; returns those that were moved to another split."""
    if chats:
        finetuning.take(kept, chats)
        chats.spill.remove()
        kept.why["records", "identical to an earlier one"] += chats.corpus.duplicates
    kept.gather()
    finetuning.write(params, kept, out / "instructions", tokenizer)
    return [*(chats or text).moved, *kept.moved]


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


def _counts(corpus: Corpus, sizes: dict[str, dict[str, int]]) -> Metrics:
    test = sizes["test"]
    return {
        "documents": counted(sum(size["documents"] for size in sizes.values())),
        "duplicates_dropped": counted(corpus.duplicates),
        "unreadable_dropped": counted(len(corpus.files.unreadable)),
        "train_bytes": counted(sizes["train"]["bytes"]),
        "train_tokens": counted(sizes["train"]["tokens"]),
        "bytes_per_token": counted(test["bytes"] / test["tokens"], "test split"),
    }


def _floors(content: bytes) -> Metrics:
    """What two compressors need for the very bytes the models are scored on."""
    bits = 8 / len(content)
    note = f"{len(content)} held-out bytes"
    return {
        "gzip_bits_per_byte": measured(len(gzip.compress(content, 9, mtime=0)) * bits, note),
        "xz_bits_per_byte": measured(len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)) * bits, note),
    }


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
