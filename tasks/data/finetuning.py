"""Rows for finetuning on disk: a folder per kind, how long each row is, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.data import Data
from tasks.data.documents import SPLITS
from tasks.data.jsonfiles import write_json, write_jsonl
from tasks.data.kinds import KINDS
from tasks.data.source import Source
from tasks.data.written import BEYOND, LISTED, Kept
from tasks.models.chat import sizes_of

REFUSED = "refused by the chat template"


def take(kept: Kept, own: Source) -> None:
    """The rows of `data.instructions`.

    Raises:
        UserError: it holds none.
    """
    for split, document in own.spill.rows():
        kept.take(split, document)
    if not any(part for splits in kept.rows.values() for part in splits.values()):
        left = ", ".join(f"{count} with {why}" for (_, why), count in kept.why.items())
        raise UserError(
            f"data.instructions: no chat, preference or prompt in it{f' ({left})' if left else ''}",
            "name records with 'messages' or another format that data.format lists, or set it to data/none",
        )


def write(params: Data, kept: Kept, folder: Path, tokenizer: Any) -> None:
    """The rows of every kind and split, and from how long each is, what training on them will cost can be told.

    Chats are always written; another kind has a folder where there is a row of it.
    """
    folder.mkdir()
    sizes: dict[str, Any] = {}
    for kind, splits in kept.rows.items():
        found = {name: _sized(kept, kind, name, tokenizer) for name in splits}
        if kind == "chats":
            sizes["tokens_and_labelled"] = found
        elif any(splits.values()):
            sizes[kind] = found
        else:
            continue
        (folder / KINDS[kind].folder).mkdir(exist_ok=True)
        for name, part in splits.items():
            write_jsonl(folder / KINDS[kind].folder / f"{name}.jsonl", (taken.row for taken in part))
    write_json(folder / "sizes.json", {"of": params.identity, **sizes}, indent=None)


def _sized(kept: Kept, kind: str, split: str, tokenizer: Any) -> list[list[int]]:
    """Sizes of a split's rows; those the template refuses leave it. None without a template: whoever needs one says so."""
    if not tokenizer.chat_template:
        return []
    sizes, fine = [], []
    for taken in kept.rows[kind][split]:
        try:
            sizes.append(sizes_of(KINDS[kind].conversations(taken.row), tokenizer))
        except TemplateError:
            kept.leave_out(taken.path, kind, REFUSED)
            continue
        except UserError:  # the template itself is of no use, and training says so
            pass
        fine.append(taken)
    kept.rows[kind][split] = fine
    return sizes


def counts(kept: Kept, moved: int, job: Job) -> Metrics:
    """How many rows there are to train on, how many were left out or moved and why; it is also said."""
    metrics = Metrics()
    for name, kind in KINDS.items():
        splits = kept.rows[name]
        if name == "chats" or any(splits.values()):
            metrics[kind.metric] = counted(len(splits["train"]), "train split")
            job.say(f"{name}: " + ", ".join(f"{len(splits[split])} {split}" for split in SPLITS))
    dropped = Counter({reason: count for reason, count in kept.why.items() if count and reason[1] != BEYOND})
    said = ", ".join(f"{count} {kind}: {why}" for (kind, why), count in sorted(dropped.items()))
    if said:
        job.say(f"rows left out: {said} (see manifest.json)")
    if beyond := sum(count for (_, why), count in kept.why.items() if why == BEYOND):
        job.say(f"{beyond} rows {BEYOND} were not kept")
    metrics["rows_dropped"] = counted(dropped.total(), said or "none")
    note = "to be on one side with their near-duplicates"
    metrics["rows_moved"] = counted(moved, note)
    if moved:
        job.say(f"{moved} rows moved to another split {note} (listed in manifest.json)")
    return metrics


def manifest(kept: Kept, moved: list[dict[str, str]], own: Source | None) -> dict[str, Any]:
    """What was left out and moved, row by row up to a bound, and the files of `data.instructions`; nothing where nothing was."""
    found: dict[str, Any] = {}
    if own is not None:
        found |= {"files": own.corpus.files.described, "unreadable": own.corpus.files.unreadable}
    if kept.left_out:
        found["left_out"] = kept.left_out
    if kept.why.total():
        found["reasons"] = {f"{kind}: {why}": count for (kind, why), count in sorted(kept.why.items()) if count}
    if moved:
        found["moved"], found["moved_count"] = moved[:LISTED], len(moved)
    return {"instructions": found} if found else {}
