"""Token shards: each split as one flat array of ids that training maps into memory, with an index of its documents."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.data.documents import SPLITS, Document
from tasks.data.spill import Spill

BATCH = 256
"""Documents that are tokenized at a time, at most."""
BATCH_BYTES = 1 << 18
"""Characters that are tokenized at a time; a longer document goes alone."""
INDEX = [("start", "<i8"), ("group", "<i4"), ("difficulty", "<f4")]
"""A row of the index: first token, number of the group, zlib-compressed bytes per byte."""


def dtype_of(vocab_size: int) -> str:
    """The smallest unsigned type that holds every id, little-endian."""
    return "<u2" if vocab_size <= 65536 else "<u4"


class Shard:
    """One split while it is written.

    Attributes:
        tokens: written so far, with the end-of-text token after each document.
        size: UTF-8 bytes of the documents.
        count: documents.
    """

    def __init__(self, path: Path, tokenizer: Any, groups: dict[str, int]) -> None:
        self.path, self.tokenizer, self.groups = path, tokenizer, groups
        self.kind = dtype_of(len(tokenizer))
        self.file = path.open("wb")
        self.waiting: list[Document] = []
        self.characters = self.tokens = self.size = self.count = 0
        self.index = bytearray()  # 16 bytes per document

    def add(self, document: Document) -> None:
        """Take a document; it is written with others."""
        self.waiting.append(document)
        self.characters += len(document.text)
        if len(self.waiting) >= BATCH or self.characters >= BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Tokenize and write what waits."""
        import numpy as np

        if not self.waiting:
            return
        texts = [document.text for document in self.waiting]
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        for document, row in zip(self.waiting, encoded, strict=True):
            np.array([*row, self.tokenizer.eos_token_id], dtype=self.kind).tofile(self.file)
            content = document.text.encode()
            difficulty = len(zlib.compress(content)) / len(content)
            self.index += np.array([(self.tokens, self.groups[document.group], difficulty)], dtype=INDEX).tobytes()
            self.tokens += len(row) + 1
            self.size += len(content)
        self.count += len(self.waiting)
        self.waiting, self.characters = [], 0

    def close(self) -> dict[str, int]:
        """Write the rest and the index; returns tokens, bytes and documents."""
        import numpy as np

        self.flush()
        self.file.close()
        np.save(self.path.with_suffix(".index.npy"), np.frombuffer(bytes(self.index), dtype=INDEX))
        return {"tokens": self.tokens, "bytes": self.size, "documents": self.count}


class Shards:
    """The shards of every split, `{split}.bin`, written side by side."""

    def __init__(self, out: Path, tokenizer: Any, groups: list[str]) -> None:
        numbers = {name: number for number, name in enumerate(groups)}
        self.of = {name: Shard(out / f"{name}.bin", tokenizer, numbers) for name in SPLITS}

    def write(self, spill: Spill, job: Job, watch: Any) -> dict[str, dict[str, int]]:
        """Write every document of `spill`, telling `watch(split, document)` of each; returns the sizes by split."""
        batches = -(-len(spill) // BATCH)
        with job.progress(batches, unit="batch of documents") as bar:
            for number, (split, document) in enumerate(spill.rows(), start=1):
                self.of[split].add(document)
                watch(split, document)
                if number % BATCH == 0:
                    bar.advance()
                    job.stop_if_over_budget(
                        f"batch of documents {number // BATCH} of {batches}", "this stage begins again"
                    )
        return {name: shard.close() for name, shard in self.of.items()}
