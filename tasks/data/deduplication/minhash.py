"""Documents that are nearly the same, by MinHash of their word n-grams."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from tasks.data.ngrams import hashes, signature_of
from tasks.data.spill import Spill
from tasks.data.technique import Filter


class Minhash(Filter):
    """Drop training documents nearly the same as a held-out or an earlier training one (Broder 1997; arXiv:2107.06499)."""

    num_perm: int = Field(default=128, ge=16, le=1024)
    """Permutations of a signature; with the index of all signatures about 48 bytes each per document stay in memory."""
    threshold: float = Field(default=0.7, gt=0, lt=1)
    """Estimated Jaccard similarity of the sets of n-grams from which two documents count as the same."""
    ngram: PositiveInt = 5
    """Words per n-gram."""
    identical: ClassVar[bool] = True

    def drops(self, spill: Spill) -> dict[str, str]:
        """Held-out documents are indexed first, so that it is the training document that leaves."""
        from datasketch import MinHashLSH

        index, found = MinHashLSH(threshold=self.threshold, num_perm=self.num_perm), dict[str, str]()
        signatures: dict[str, Any] = {}
        for splits in (("validation", "test"), ("train",)):
            for split, document in spill.rows(*splits):
                signature = signature_of(hashes(document.text, self.ngram), self.num_perm)
                if signature is None:
                    continue
                if split == "train":
                    # the index finds candidates; the signatures decide
                    like = [c for c in index.query(signature) if signature.jaccard(signatures[c]) >= self.threshold]
                    if like:
                        found[document.path] = f"like {min(like)}"
                        continue
                signatures[document.path] = signature
                index.insert(document.path, signature)
        return found
