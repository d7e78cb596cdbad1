"""Loyalty, fidelity and robustness against independent definitions."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.evaluate import Evaluate, loyalty
from tasks.evaluate.robustness import RATE, mistype, robustness
from tasks.evaluate.text import score

PARAMS = Evaluate(max_bytes=4096, context_length=16, batch_size=4, sample_tokens=4)
TEXTS = ["def area(width, height):\n    return width * height\n", "class Point:\n    pass\n", "x" * 50]


class ByteTokenizer:
    """A token per byte: all that scoring asks of a tokenizer, and nothing to train."""

    bos_token_id = 256

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        """The bytes of `text`."""
        return {"input_ids": list(text.encode())}


def tiny(seed: int) -> Any:
    """A Llama with opinions: a wide initialisation makes its distributions far from uniform."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=257, initializer_range=0.3)).eval()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job without a shell around it."""
    return Job("compress", tmp_path)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_divergences_are_scipys(scale: float) -> None:
    """Jensen-Shannon distance (base 2) and KL agree with scipy, from near-uniform to near-certain distributions."""
    dice = np.random.default_rng(0)
    a, b = (dice.normal(size=(40, 300)) * scale for _ in range(2))
    same, distance, kl = loyalty.divergences(torch.from_numpy(a), torch.from_numpy(b))
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    np.testing.assert_allclose(distance, jensenshannon(p, q, base=2, axis=1), atol=1e-5)
    np.testing.assert_allclose(kl, rel_entr(p, q).sum(1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(same, a.argmax(1) == b.argmax(1))


def test_equal_and_disjoint_distributions_are_the_ends_of_the_scale() -> None:
    """Distance is exactly 0 between equal distributions and 1 between disjoint ones."""
    logits = torch.randn(5, 50, generator=torch.Generator().manual_seed(0)) * 10
    same, distance, kl = loyalty.divergences(logits, logits.clone())
    assert (same.min(), distance.max(), kl.max()) == (1, 0, 0)
    apart = torch.full((1, 4), -200.0)
    one, other = apart.clone(), apart.clone()
    one[0, 0] = other[0, 1] = 200
    same, distance, _ = loyalty.divergences(one, other)
    assert (same.item(), distance.item()) == (0, pytest.approx(1))


def test_streaming_gives_what_all_logits_at_once_give(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches, chunks and padding change nothing."""
    original, other = tiny(0), tiny(1)
    whole = loyalty.compare(original, other, ByteTokenizer(), TEXTS, PARAMS, job)
    monkeypatch.setattr(loyalty, "CHUNK_BYTES", 4 * 257 * 3)
    monkeypatch.setattr(loyalty, "BATCH_BYTES", 1)
    pieces = loyalty.compare(original, other, ByteTokenizer(), TEXTS, PARAMS, job)
    assert whole.positions == pieces.positions == sum(len(text.encode()) for text in TEXTS)
    assert pieces.label == whole.label
    assert (pieces.probability, pieces.kl_nats) == pytest.approx((whole.probability, whole.kl_nats), rel=1e-5)
    assert 0 < whole.probability < 1
    assert whole.kl_nats > 0


def test_positions_are_capped_and_the_note_says_so(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than the cap is compared, and the note names both."""
    monkeypatch.setattr(loyalty, "MAX_POSITIONS", 21)
    found = loyalty.compare(tiny(0), tiny(1), ByteTokenizer(), TEXTS, PARAMS, job)
    assert found.positions == 21
    assert found.note.count("21") == 2


def test_predictions_that_are_not_numbers_are_refused(job: Job) -> None:
    """A model that answers NaN is the user's to know about, not a loyalty of NaN."""
    broken = tiny(0)
    broken.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="not numbers"):
        loyalty.compare(tiny(0), broken, ByteTokenizer(), TEXTS, PARAMS, job)
    with pytest.raises(UserError, match="no held-out text"):
        loyalty.compare(tiny(0), tiny(0), ByteTokenizer(), [], PARAMS, job)


def test_typing_errors_are_the_same_for_the_same_seed() -> None:
    """Deterministic by seed, different between seeds, absent at rate 0."""
    text = "the quick brown fox jumps over the lazy dog, " * 50
    assert mistype(text, 1) == mistype(text, 1) != mistype(text, 2)
    assert mistype(text, 1, rate=0) == text
    assert mistype("", 1) == ""


def test_typing_errors_come_at_the_stated_rate_and_spare_white_space() -> None:
    """Dropped, replaced and swapped characters each are a third of the rate, and no white space moves."""
    text = "ABCDEFGHI\n" * 4000
    typed = mistype(text, 0)
    letters = len(text) - text.count("\n")
    assert [len(line) for line in typed.split("\n")] != [len(line) for line in text.split("\n")]
    assert typed.count("\n") == text.count("\n")
    # a swap at the end of a line has nothing to swap with: the character is lost
    dropped = len(text) - len(typed)
    replaced = sum(typed.count(letter) for letter in string.ascii_lowercase)
    assert dropped / letters == pytest.approx(RATE / 3 * (1 + 1 / 9), rel=0.2)
    assert replaced / letters == pytest.approx(RATE / 3, rel=0.2)


def test_robustness_scores_the_mistyped_text(job: Job) -> None:
    """The figure is the bits per byte of exactly the text with errors."""
    model, texts = tiny(0), [*TEXTS, "the quick brown fox " * 40]
    found = robustness(model, ByteTokenizer(), texts, PARAMS, 3, job)
    mistyped = [mistype(text, f"3 {index}") for index, text in enumerate(texts)]
    assert mistyped != texts
    assert found == score(model, ByteTokenizer(), mistyped, PARAMS, job).bits_per_byte
