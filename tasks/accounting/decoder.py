"""Decoders layer by layer: what differs between families goes in, an anatomy comes out."""

from __future__ import annotations

from collections.abc import Callable

from tasks.accounting.anatomy import Anatomy, Block, Matrix
from tasks.accounting.attention import gated_mlp, grouped_query, head_size, scores
from tasks.models import Config

Layer = Callable[[int], tuple[Matrix, ...]]
"""Number of a layer -> its feed-forward matrices."""


def filled(config: Config, **defaults: object) -> Config:
    """The config with what it leaves out as transformers would fill it in; a null stays one, as it does there."""
    return {**defaults, **config}


def key_heads(config: Config) -> int:
    """Heads of keys and values: those of the queries, unless the config says otherwise."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def per_head_norms(config: Config) -> int:
    """Weights of the norms of queries and keys where all heads share them (Qwen3)."""
    return 2 * head_size(config)


def whole_norms(config: Config) -> int:
    """Weights of the norms of queries and keys over all heads at once (OLMo)."""
    return head_size(config) * (int(config["num_attention_heads"]) + key_heads(config))


def windows(config: Config, local: Callable[[int], bool] = lambda _: True) -> list[int | None]:
    """Window of each layer, None where it sees everything.

    Args:
        config: `layer_types` decides where it is given.
        local: number of a layer -> whether it has a window where the config doesn't list it.
    """
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    kinds = config.get("layer_types")
    return [
        window if window and (kinds[i] == "sliding_attention" if kinds else local(i)) else None
        for i in range(config["num_hidden_layers"])
    ]


def decoder(
    config: Config,
    *,
    bias: bool = False,
    out_bias: bool = False,
    seen: list[int | None] | None = None,
    norms: int = 2,
    attention_vectors: int = 0,
    feed_forward: Layer | None = None,
) -> Anatomy:
    """A decoder with grouped-query attention.

    Args:
        config: of transformers.
        bias: whether queries, keys and values add a vector.
        out_bias: whether the attention's output adds one.
        seen: window of each layer; None: they see everything.
        norms: of a layer, over the model's width.
        attention_vectors: parameters of a layer's attention that are no matrices.
        feed_forward: matrices behind the attention; None: gated, `intermediate_size` wide.
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    behind = feed_forward or (lambda _: gated_mlp(width, config["intermediate_size"]))
    seen = seen or [None] * layers
    attention = grouped_query(config, bias, out_bias)
    return assemble(
        config,
        tuple(
            Block(
                f"model.layers.{i}",
                attention + behind(i),
                (scores(config, seen[i]),),
                norms * width + attention_vectors,
            )
            for i in range(layers)
        ),
    )


def assemble(config: Config, blocks: tuple[Block, ...]) -> Anatomy:
    """Blocks, an embedding before and a norm behind them."""
    return Anatomy(
        width=config["hidden_size"],
        vocab=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        blocks=blocks,
        vectors=config["hidden_size"],
    )
