"""How good a candidate is expected to be: the scaling law, and what its files lose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log

from tasks.core.measure import Value, assumed, modelled
from tasks.scaling.law import Law, effective_bytes, loss

CHINCHILLA = {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}
"""Nats per token of (parameters, tokens): Chinchilla's data fitted again (arXiv:2404.10102, table 1)."""

PASSES = 16
"""A plan reads its text that many times at most: the last pass teaches 1/e of what the first did (arXiv:2305.16264)."""

FILE_LOSS = {"F16": 1.0, "Q8_0": 1.00004, "Q4_0": 1.0234}
"""Code length of text beside the unquantized model's, by GGUF type (llama.cpp's table for LLaMA-7B, 2023:
perplexities 5.9066, 5.9070 and 6.1565)."""

COMPRESS_LOSS = {"none": 1.0, "int8": 1.006, "nf4": 1.086, "magnitude": 2.178}
"""The same by compression (SmolLM2-135M on Python source, this project's LOG, November 2026)."""


@dataclass(frozen=True)
class Quality:
    """Predicts bits per byte of held-out text.

    Attributes:
        fitted: to this project's own small runs; None: Chinchilla's fit stands in.
        bytes_per_token: of the tokenizer.
        distinct: bytes of the training text.
    """

    fitted: Law | None
    bytes_per_token: float
    distinct: float

    @cached_property
    def law(self) -> Law:
        """The law that is used."""
        return self.fitted or published(self.bytes_per_token)

    def value(self, parameters: float, text: float, lost: float = 1.0) -> float:
        """Bits per byte of the best fit, without bounds.

        Args:
            parameters: active ones without embeddings.
            text: bytes it is trained on, repetitions included.
            lost: factor for what compression and the file's type lose.
        """
        law = self.law
        coefficients = (law.E, law.A, law.alpha, law.B, law.beta)
        return lost * loss(coefficients, parameters, effective_bytes(text, self.distinct))

    def judged(self, parameters: float, text: float, lost: float = 1.0) -> Value:
        """The same with its bounds, where the law has any, and its source."""
        found = self.law.bits_per_byte(parameters, text, self.distinct)
        if self.fitted is None:
            return assumed(found.value * lost, self.law.source)
        return modelled(found.value * lost, self.law.source, found.low * lost, found.high * lost)


def published(bytes_per_token: float) -> Law:
    """Chinchilla's fit as a law of bits per byte over bytes of text."""
    fit, nats = CHINCHILLA, log(2) * bytes_per_token
    return Law(
        E=fit["E"] / nats,
        A=fit["A"] / nats,
        alpha=fit["alpha"],
        B=fit["B"] * bytes_per_token ** fit["beta"] / nats,
        beta=fit["beta"],
        replicas=(),
        residual=0.0,
        source="Chinchilla's published fit (arXiv:2404.10102): it ranks candidates, its values are those of another text",
        bytes_per_token=bytes_per_token,
    )
