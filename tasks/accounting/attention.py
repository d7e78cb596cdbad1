"""Attention with heads of its own keys and values, and the feed-forward layers behind it."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting.anatomy import Matrix
from tasks.models import Config


@dataclass(frozen=True)
class Attention:
    """Scores of every token with those before it.

    Attributes:
        heads: of the queries.
        key_size: of a head's query and key.
        value_size: of a head's value.
        cached: numbers kept per token.
        window: tokens a query sees at most, itself included; None: all.
        order: after the matrices that make queries, keys and values.
    """

    heads: int
    key_size: int
    value_size: int
    cached: int
    window: int | None = None
    order: int = 1

    def _seen(self, tokens: int) -> int:
        return tokens if self.window is None else min(tokens, self.window)

    def forward_flops(self, context: int) -> float:
        """Products with keys and with values."""
        return 2.0 * self.heads * (self.key_size + self.value_size) * context * self._seen(context)

    def decode_flops(self, position: int) -> float:
        """The same for one query."""
        return 2.0 * self.heads * (self.key_size + self.value_size) * self._seen(position)

    def cache_bytes(self, context: int, element: int) -> int:
        """Keys and values of the tokens the next one can see: with a window, transformers keeps one fewer than it.

        They are views: the memory behind them holds one token more, and right after prefill the whole prompt.
        """
        kept = context if self.window is None else min(context, self.window - 1)
        return self.cached * kept * element


def head_size(config: Config) -> int:
    """Width of a head, which some configs leave to the division."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def grouped_query(config: Config, bias: bool = False, out_bias: bool = False) -> tuple[Matrix, ...]:
    """Projections of grouped-query attention (arXiv:2305.13245); data order 0 for q, k, v and 2 for the output."""
    width, size = config["hidden_size"], head_size(config)
    query = size * config["num_attention_heads"]
    key = size * (config.get("num_key_value_heads") or config["num_attention_heads"])
    return (
        Matrix("self_attn.q_proj", width, query, 0, bias),
        Matrix("self_attn.k_proj", width, key, 0, bias),
        Matrix("self_attn.v_proj", width, key, 0, bias),
        Matrix("self_attn.o_proj", query, width, 2, out_bias),
    )


def scores(config: Config, window: int | None = None) -> Attention:
    """Their scores, and the keys and values kept."""
    size = head_size(config)
    key_heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return Attention(config["num_attention_heads"], size, size, 2 * size * key_heads, window)


def gated_mlp(width: int, inner: int, name: str = "mlp", bias: bool = False, way: str = "") -> tuple[Matrix, ...]:
    """SwiGLU and its kin (arXiv:2002.05202): gate and up read the same input."""
    return (
        Matrix(f"{name}.gate_proj", width, inner, 3, bias, way=way),
        Matrix(f"{name}.up_proj", width, inner, 3, bias, way=way),
        Matrix(f"{name}.down_proj", inner, width, 4, bias, way=way),
    )
