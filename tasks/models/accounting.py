"""Exact arithmetic of a decoder from its transformers config: parameters, FLOPs, KV bytes. No torch.

A multiply-add counts as two FLOPs; element-wise work (norms, activations, softmax) is not counted, as in
`torch.utils.flop_counter`, against which the tests compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like decoder, defaults of transformers filled in."""

    width: int
    inner: int
    layers: int
    query: int
    key_value: int
    vocab: int
    tied: bool

    @classmethod
    def of(cls, config: Config) -> Shape:
        """Read the sizes from a transformers config (a dict, as in config.json)."""
        heads = config["num_attention_heads"]
        head = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            width=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            query=head * heads,
            key_value=head * (config.get("num_key_value_heads") or heads),
            vocab=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def linear(self) -> int:
        """Parameters of the linear layers inside the blocks."""
        attention = 2 * self.width * self.query + 2 * self.width * self.key_value
        return self.layers * (attention + 3 * self.width * self.inner)


def parameters(config: Config) -> int:
    """Number of parameters, tied embeddings counted once."""
    shape = Shape.of(config)
    embeddings = shape.vocab * shape.width * (1 if shape.tied else 2)
    return shape.linear + embeddings + (2 * shape.layers + 1) * shape.width


def forward_flops_per_token(config: Config, context: int) -> float:
    """FLOPs of one token's forward pass in a sequence of `context` tokens: prefill or training, full score matrix."""
    shape = Shape.of(config)
    scores = 4 * shape.layers * shape.query * context
    return float(2 * (shape.linear + shape.vocab * shape.width) + scores)


def training_flops_per_token(config: Config, context: int) -> float:
    """FLOPs of one token's forward and backward pass with every weight trained."""
    shape = Shape.of(config)
    matmul = 6 * (shape.linear + shape.vocab * shape.width)
    return float(matmul + 3 * 4 * shape.layers * shape.query * context)


def decode_flops_per_token(config: Config, position: int) -> float:
    """FLOPs of generating one token when `position` tokens are in the cache."""
    return forward_flops_per_token(config, position)


def kv_cache_bytes_per_token(config: Config, bytes_per_element: int = 2) -> int:
    """Bytes the key-value cache grows by with every token."""
    shape = Shape.of(config)
    return 2 * shape.layers * shape.key_value * bytes_per_element
