"""Hashed n-grams of words, for everything that compares texts."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

WORD = re.compile(r"\w+")
BASE = 0x9E3779B97F4A7C15


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def hashes(text: str, n: int) -> Any:
    """64-bit hashes of every `n` consecutive words, lower case, punctuation ignored: uint64, (words - n + 1,) or (0,)."""
    import numpy as np

    words = np.array([_hash(word) for word in WORD.findall(text.lower())], dtype=np.uint64)
    count = len(words) - n + 1
    if count < 1:
        return words[:0]
    total = np.zeros(count, dtype=np.uint64)
    for offset in range(n):  # a polynomial in an odd base, modulo 2^64
        total = total * np.uint64(BASE) + words[offset : offset + count]
    total ^= total >> np.uint64(32)
    return total * np.uint64(BASE)


def signature_of(grams: Any, num_perm: int) -> Any:
    """The MinHash of hashed n-grams, uint64 (n,); None where there are none."""
    from datasketch import LeanMinHash, MinHash

    if not len(grams):
        return None
    made = MinHash(num_perm=num_perm, seed=1, hashfunc=_low)
    made.update_batch(set((grams >> 32).tolist()))
    return LeanMinHash(made)


def _low(value: int) -> int:
    """The n-grams are hashed already; datasketch wants 32 bits."""
    return value & 0xFFFFFFFF
