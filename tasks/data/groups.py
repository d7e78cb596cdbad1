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
"""Of the signatures that must agree for two to be candidates: at a similarity of 0.7 they miss 1 pair in 100, at 0.8 1 in 20,000."""
SAMPLE = 1000
"""Prompts in which a template's words are looked for."""
COMMON = 0.5
"""Share of different prompts above which a sequence of words is the template's, not the question's."""
FEWEST = 20
"""With fewer different prompts nothing is taken for a template."""
BEFORE = 200
"""Candidates a prompt is held against in one band."""
MOST = 200_000
"""Prompts with a signature in memory, 0.6 kB each; those after them are grouped by their exact text alone."""


class Groups:
    """Keys of prompts, joined where the prompts are nearly the same.

    Two prompts are joined if they are equal but for case, white space and width of characters, or if MinHash finds them
    alike (`NEAR`); so is what either is joined with. Sequences of words that most prompts share don't count.

    Attributes:
        unlooked: prompts that came after `MOST`.
    """

    def __init__(self, sample: Iterable[str] = ()) -> None:
        self.template = _template(sample)
        self.signatures: list[Any] = []
        self.signed: list[int] = []
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
            self.signatures.append(signature.hashvalues.astype("uint32"))  # 32 bits are all it has
            self.signed.append(number)

    def close(self) -> None:
        """Join what is nearly the same: candidates are those that agree on a band of their signatures (locality-sensitive hashing).

        datasketch's index does this one by one in 7 kB per prompt; sorting every band takes 0.6.
        """
        import numpy as np

        if not self.signatures:
            return
        signatures = np.stack(self.signatures)
        for band in range(BANDS):
            part = signatures[:, band * ROWS : (band + 1) * ROWS]
            order = np.lexsort(part.T)
            differs = (part[order[1:]] != part[order[:-1]]).any(axis=1)
            for bucket in np.split(order, np.flatnonzero(differs) + 1):
                if len(bucket) > 1:
                    self._judge(np.sort(bucket), signatures)

    def _judge(self, bucket: Any, signatures: Any) -> None:
        """Join the alike of a bucket; each is held against at most `BEFORE` others, so that no bucket takes forever."""
        roots = {self._root(self.signed[at]) for at in bucket}
        for place in range(1, len(bucket)) if len(roots) > 1 else ():
            others = bucket[max(0, place - BEFORE) : place]
            like = (signatures[others] == signatures[bucket[place]]).mean(axis=1) >= JUDGED
            for other in others[like]:
                self._join(self.signed[other], self.signed[bucket[place]])

    def leaders(self) -> dict[str, str]:
        """Key -> key of the first of its group, of every key in a group of more than one; after `close`."""
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
