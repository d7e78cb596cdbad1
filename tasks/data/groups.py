"""Prompts that are nearly the same, in groups that training and held-out rows don't share."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tasks.data.ngrams import hashes, signature_of

NUM_PERM, NGRAM = 128, 5
"""Permutations of a signature; words of a sequence."""
NEAR = 0.7
"""Jaccard similarity of the sets of word sequences from which two prompts are near-duplicates."""
JUDGED = 0.6
"""Estimated similarity from which they are taken for such: the estimate's error (0.04) must not part near-duplicates."""
BANDS, ROWS = 25, 5
"""Of the index: at a similarity of 0.7 it misses 1 pair in 100, at 0.8 1 in 20,000."""
SAMPLE = 1000
"""Prompts in which a template's words are looked for."""
COMMON = 0.5
"""Share of different prompts above which a sequence of words is the template's, not the question's."""
FEWEST = 20
"""With fewer different prompts nothing is taken for a template."""
MOST = 100_000
"""Prompts with a signature in memory, some 3 kB each; those after them are grouped by their exact text alone."""


class Groups:
    """Keys of prompts, joined where the prompts are nearly the same.

    Two prompts are joined if they are equal but for case, white space and width of characters, or if MinHash finds them
    alike (`NEAR`); so is what either is joined with. Sequences of words that most prompts share don't count.

    Attributes:
        unlooked: prompts that came after `MOST`.
    """

    def __init__(self, sample: Iterable[str] = ()) -> None:
        from datasketch import MinHashLSH

        self.template = _template(sample)
        self.index = MinHashLSH(num_perm=NUM_PERM, params=(BANDS, ROWS))
        self.signatures: dict[int, Any] = {}
        self.exact: dict[bytes, int] = {}
        self.keys: list[str] = []
        self.parent: list[int] = []
        self.unlooked = 0

    def add(self, key: str, prompt: str) -> None:
        """Take a prompt; keys come once each, and the first of a group leads it."""
        number = len(self.keys)
        self.keys.append(key)
        self.parent.append(number)
        same = self.exact.setdefault(_digest(prompt), number)
        if same != number:
            self._join(same, number)
        elif len(self.signatures) >= MOST:
            self.unlooked += 1
        elif (signature := signature_of(self._grams(prompt), NUM_PERM)) is not None:
            for other in sorted(self.index.query(signature)):
                # the index finds candidates; the signatures decide
                if self._root(other) != self._root(number) and signature.jaccard(self.signatures[other]) >= JUDGED:
                    self._join(other, number)
            self.signatures[number] = signature
            self.index.insert(number, signature)

    def leaders(self) -> dict[str, str]:
        """Key -> key of the first of its group, of every key in a group of more than one."""
        roots, sizes = self._roots(), Counter(self._roots())
        return {key: self.keys[root] for key, root in zip(self.keys, roots, strict=True) if sizes[root] > 1}

    def sizes(self) -> list[int]:
        """Prompts of every group."""
        return list(Counter(self._roots()).values())

    def _roots(self) -> list[int]:
        return [self._root(number) for number in range(len(self.keys))]

    def _grams(self, prompt: str) -> Any:
        import numpy as np

        grams = np.unique(hashes(prompt, NGRAM))
        return grams[~np.isin(grams, self.template)]

    def _join(self, first: int, second: int) -> None:
        low, high = sorted((self._root(first), self._root(second)))
        self.parent[high] = low

    def _root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number


def normalised(prompt: str) -> str:
    """A prompt without what doesn't make it another: case, white space, width of characters."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def _digest(prompt: str) -> bytes:
    return hashlib.blake2b(normalised(prompt).encode(), digest_size=16).digest()


def _template(prompts: Iterable[str]) -> Any:
    """Hashes of the n-grams that most of the different prompts have: uint64, sorted."""
    import numpy as np

    different = list({_digest(prompt): prompt for prompt in prompts}.values())
    if len(different) < FEWEST:
        return np.zeros(0, dtype=np.uint64)
    found, counts = np.unique(
        np.concatenate([np.unique(hashes(text, NGRAM)) for text in different]), return_counts=True
    )
    return found[counts > COMMON * len(different)]
