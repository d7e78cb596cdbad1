"""A source that was gone through: its corpus, and its documents on disk, each on its side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.job import Job
from tasks.data import Data
from tasks.data.corpus import Corpus, survey
from tasks.data.documents import Document, split
from tasks.data.files import ALONE, passed_over
from tasks.data.groups import MOST, Groups
from tasks.data.kinds import asked
from tasks.data.spill import Spill


@dataclass(frozen=True)
class Source:
    """What a source holds.

    Attributes:
        corpus: entries and files.
        spill: the documents.
        moved: path, and from which split to which, of records that follow their near-duplicates.
    """

    corpus: Corpus
    spill: Spill
    moved: list[dict[str, str]]


def opened(params: Data, path: Path, folder: Path, job: Job, name: str = "source", wanted: str = "auto") -> Source:
    """Go through a source, twice, and lay its documents down by split.

    Args:
        params: of the stage.
        path: file or folder.
        folder: where the documents are laid down.
        job: where it is said what was found.
        name: the field of `params` that names the source.
        wanted: format of its records.

    Raises:
        UserError: whatever is wrong with the source, by file, row and field.
    """
    limit = params.max_documents if name == "source" else None
    identical = params.deduplication.technique.identical
    corpus = survey(path, params.text_field, limit, identical, wanted, f"data.{name}")
    _say_found(corpus, path, name, wanted, job)
    spill = Spill(folder, sum(entry.size for entry in corpus.entries))
    groups = Groups(corpus.prompts) if corpus.prompts else None
    spill.fill(_grouped(corpus.documents(), groups) if groups else corpus.documents())
    leaders = groups.leaders() if groups else {}
    spill.split_of = _sides(params, corpus, leaders)
    if not groups:
        return Source(corpus, spill, [])
    _say_grouped(groups, name, job)
    alone = _sides(params, corpus, {}) if leaders else {}
    moved = [
        {"path": key, "from": alone[key], "to": spill.split_of[key]}
        for key in leaders
        if alone[key] != spill.split_of[key]
    ]
    return Source(corpus, spill, moved)


def _say_found(corpus: Corpus, path: Path, name: str, wanted: str, job: Job) -> None:
    for problem in corpus.files.unreadable:
        job.say(f"left out {problem}")
    if others := passed_over(path):
        job.say(
            f"not read: {len(others)} {' and '.join(ALONE)} files beside others (data.{name} may name one, or a folder of them)"
        )
    for file, form in corpus.reading.formats.items():
        if form != "text":
            job.say(f"{file}: records of format {form}" + (" (by their fields)" if wanted == "auto" else ""))


def _say_grouped(groups: Groups, name: str, job: Job) -> None:
    largest = max(groups.sizes(), default=1)
    if largest > len(groups.keys) / 2:
        job.say(
            f"data.{name}: {largest} of {len(groups.keys)} records are near-duplicates of one another and stay together"
        )
    if groups.unlooked:
        job.say(
            f"data.{name}: {groups.unlooked} records after the first {MOST} were grouped by their exact prompt alone"
        )


def _sides(params: Data, corpus: Corpus, leaders: dict[str, str]) -> dict[str, str]:
    parts = split(corpus.entries, params.validation_fraction, params.test_fraction, leaders)
    return {entry.path: name for name, entries in parts.items() for entry in entries}


def _grouped(documents: Iterator[Document], groups: Groups) -> Iterator[Document]:
    """The documents as they come, their prompts taken on the way."""
    for document in documents:
        if document.rows:
            groups.add(document.path, asked(document.rows))
        yield document
    groups.close()
