"""Token shards: each split as one flat array of ids that training maps into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.data.documents import Document

BATCH = 256


def dtype_of(vocab_size: int) -> str:
    """The smallest unsigned type that holds every id, little-endian."""
    return "<u2" if vocab_size <= 65536 else "<u4"


def _batches(documents: list[Document]) -> Iterator[list[str]]:
    for at in range(0, len(documents), BATCH):
        yield [document.text for document in documents[at : at + BATCH]]


def write(path: Path, documents: list[Document], tokenizer: Any, job: Job) -> dict[str, int]:
    """Write the ids of `documents`, each followed by the end-of-text token; returns tokens, bytes and documents."""
    import numpy as np

    kind, end = dtype_of(len(tokenizer)), tokenizer.eos_token_id
    tokens = 0
    with path.open("wb") as file:
        for texts in job.track(_batches(documents), -(-len(documents) // BATCH), f"batch of {path.stem}"):
            encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
            ids = np.concatenate([np.array([*row, end], dtype=kind) for row in encoded])
            ids.tofile(file)
            tokens += len(ids)
    return {"tokens": tokens, "bytes": sum(len(d.text.encode()) for d in documents), "documents": len(documents)}
