"""Test documents that share an n-gram of words with the training text."""

from __future__ import annotations

from tasks.data.ngrams import hashes
from tasks.data.spill import Spill

MAX_NGRAMS = 2_000_000
"""N-grams of test documents that are held in memory: 16 bytes each; test documents beyond them are not looked at."""


def contaminated(spill: Spill, n: int) -> tuple[list[str], int]:
    """Paths of test documents with an n-gram that is in a training document too, and how many were looked at (GPT-3, appendix C)."""
    import numpy as np

    paths, grams, owners, size = list[str](), [], [], 0
    for _, document in spill.rows("test"):
        found = np.unique(hashes(document.text, n))
        if size + len(found) > MAX_NGRAMS:
            break
        grams.append(found)
        owners.append(np.full(len(found), len(paths), dtype=np.int64))
        paths.append(document.path)
        size += len(found)
    if not size:
        return [], len(paths)
    every, owner = np.concatenate(grams), np.concatenate(owners)
    order = np.argsort(every, kind="stable")
    every, owner = every[order], owner[order]
    shared = np.zeros(len(every), dtype=bool)
    for text in spill.texts("train"):
        wanted = hashes(text, n)
        first, last = np.searchsorted(every, wanted, "left"), np.searchsorted(every, wanted, "right")
        for start, end in zip(first[first < last], last[first < last], strict=True):
            shared[start:end] = True
    return [paths[number] for number in np.unique(owner[shared])], len(paths)
