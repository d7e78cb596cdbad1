"""Decoders in the manner of Llama: attention over everything before, then a gated feed-forward layer."""

from __future__ import annotations

from dataclasses import replace

from tasks.accounting.anatomy import Anatomy, Block
from tasks.accounting.attention import gated_mlp, grouped_query, scores
from tasks.models import Config


def llama(config: Config) -> Anatomy:
    """LlamaForCausalLM, with or without biases."""
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    bias = bool(config.get("attention_bias", False))
    behind = gated_mlp(width, config["intermediate_size"], bias=bool(config.get("mlp_bias", False)))
    matrices = grouped_query(config, bias, bias) + behind
    return Anatomy(
        width=width,
        vocab=config["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        blocks=tuple(Block(f"model.layers.{i}", matrices, (scores(config),), 2 * width) for i in range(layers)),
        vectors=width,
    )


def bitnet(config: Config) -> Anatomy:
    """BitNetForCausalLM: a Llama with a norm before the output of attention and feed-forward layer each."""
    plain = llama(config)
    norms = config["hidden_size"] + config["intermediate_size"]
    return replace(plain, blocks=tuple(replace(block, vectors=block.vectors + norms) for block in plain.blocks))
