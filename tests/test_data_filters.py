"""What leaves the training documents: near-duplicates, poor quality, what is unlike the target; and contamination."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import UserError
from tasks.data.contamination import contaminated
from tasks.data.deduplication.minhash import Minhash
from tasks.data.documents import Document, hash_of
from tasks.data.importance.dsir import Dsir
from tasks.data.quality.perplexity import Perplexity
from tasks.data.quality.rules import Rules
from tasks.data.spill import Spill
from tasks.data.technique import refuse_nothing_left
from tasks.ledger.predict.constants import SIGNED_BYTES


def prose(seed: int, words: int = 120, letters: str = "abcdefgh") -> str:
    """Made-up words, the same for the same seed."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(letters, k=5)) for _ in range(words)) + "\n"


def spill(root: Path, **splits: dict[str, str]) -> Spill:
    """Documents by split."""
    of = {path: split for split, texts in splits.items() for path in texts}
    made = Spill(root / "texts", 5_000_000, of)
    made.fill(Document(path, text) for texts in splits.values() for path, text in texts.items())
    return made


def test_spilled_documents_come_in_the_order_of_their_hash(tmp_path: Path) -> None:
    """Bucket after bucket is the order of the paths' hashes, and texts come back as they were."""
    texts = {f"d{i}": f"text {i}\u2028\r\n\x0c é" for i in range(50)}
    rows = [document for _, document in spill(tmp_path, train=texts).rows()]
    assert [d.path for d in rows] == sorted(texts, key=hash_of)
    assert all(d.text == texts[d.path] for d in rows)


def test_near_duplicates_leave_training_alone(tmp_path: Path) -> None:
    """A near-duplicate of a held-out document leaves train, one of two alike training documents stays, held-out ones stay."""
    held, twin, other = prose(1), prose(2), prose(3)
    made = spill(
        tmp_path,
        train={"like_held": held + "new", "twin1": twin, "twin2": twin + "more", "other": other, "tiny": "a b"},
        test={"held1": held, "held2": held + "again"},
        validation={"v": prose(4)},
    )
    found = Minhash().drops(made)
    assert "like_held" in found
    assert len(found.keys() & {"twin1", "twin2"}) == 1
    assert len(found) == 2
    assert found == Minhash().drops(made)


@pytest.mark.parametrize("num_perm", [32, 128])
def test_signatures_take_the_memory_that_is_predicted(tmp_path: Path, num_perm: int) -> None:
    """Per document and permutation, the index included: within a factor of two, and so neither 8 bytes nor kilobytes."""
    made = spill(tmp_path, train={f"d{i}": prose(i, 8, "abcd") for i in range(400)})
    Minhash(num_perm=num_perm).drops(made)  # what is imported and remembered once
    tracemalloc.start()
    try:
        found = Minhash(num_perm=num_perm).drops(made)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    each = peak / (400 - len(found)) / num_perm
    assert 0.5 < each / SIGNED_BYTES < 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("short", "min_characters"),
        (prose(1) * 200, "max_characters"),
        ("{}[]()<>;:!? " * 10, "max_symbol_ratio"),
        ("one two three " * 200, "min_compression_ratio"),
        ("".join(map(chr, random.Random(0).sample(range(40, 126), k=80))), "max_compression_ratio"),
        ("a line that comes again\n" * 5 + prose(5), "max_duplicate_lines"),
    ],
)
def test_each_rule_names_what_it_drops(text: str, rule: str) -> None:
    """A text made to break a rule breaks it; ordinary prose breaks none."""
    rules = Rules(max_characters=100_000, max_duplicate_lines=0.5)
    assert rule in list(rules.broken(text))
    assert not list(rules.broken(prose(9)))


def test_perplexity_drops_the_odd_ones(tmp_path: Path) -> None:
    """Documents of other letters than the rest are the least likely, and exactly the share asked for goes."""
    usual = {f"u{i}": prose(i) for i in range(18)}
    odd = {f"odd{i}": prose(i, letters="qwxyzjkv") for i in range(2)}
    found = Perplexity(keep_fraction=0.9).drops(spill(tmp_path, train=usual | odd, test={"t": "never dropped"}))
    assert set(found) == set(odd)


def test_importance_keeps_what_is_like_the_target(tmp_path: Path) -> None:
    """Documents of the target's words are kept before others; no target is refused in words."""

    def of(words: list[str], seed: int) -> str:
        return " ".join(random.Random(seed).choices(words, k=200))

    law, food = ["court", "claim", "judge", "appeal"], ["bread", "onion", "butter", "salt"]
    texts = {f"{'law' if i % 2 else 'food'}/{i}": of(law if i % 2 else food, i) for i in range(20)}
    made = spill(tmp_path, train=texts)
    dropped = Dsir(target="law", keep_fraction=0.5).drops(made)
    assert {path.partition("/")[0] for path in dropped} == {"food"}
    assert len(dropped) == 10
    with pytest.raises(UserError, match=r"dsir\.target"):
        Dsir(target="nowhere/*").drops(made)


def test_contamination_is_a_shared_run_of_words(tmp_path: Path) -> None:
    """Thirteen words in a row make a test document contaminated, whatever the punctuation; twelve do not."""
    words = prose(1).split()
    made: Any = spill(
        tmp_path,
        train={"a": prose(2) + ", ".join(words[:13]).upper() + "\n" + prose(3), "b": " ".join(words[20:32])},
        test={"thirteen": " ".join(words[:13]), "twelve": " ".join(words[20:32]), "own": prose(7)},
    )
    assert contaminated(made, 13) == (["thirteen"], 3)


def test_nothing_left_is_refused() -> None:
    """A technique that drops everything is named."""
    with pytest.raises(UserError, match=r"data\.quality"):
        refuse_nothing_left("data.quality", 0)
