"""Mixtures of experts: a router sends each token to a few of many feed-forward layers.

The experts of a layer lie in two three-dimensional tensors, the router in one of its own, so no adapter or quantizer
that looks for linear modules finds them. Upstream's defaults are filled in.
"""

from __future__ import annotations

from tasks.accounting.anatomy import Anatomy, Matrix
from tasks.accounting.attention import gated_mlp
from tasks.accounting.decoder import Layer, decoder, filled, per_head_norms, whole_norms, windows
from tasks.models import Config


def routed(width: int, inner: int, experts: int, active: int) -> tuple[Matrix, ...]:
    """A router and `experts` gated layers `inner` wide, of which a token passes `active`."""
    return (
        Matrix("mlp.gate", width, experts, 3, module=False, way="experts"),
        Matrix("mlp.experts.gate_up_proj", width, 2 * inner, 3, False, experts, active, False, "experts"),
        Matrix("mlp.experts.down_proj", inner, width, 4, False, experts, active, False, "experts"),
    )


def shared(width: int, inner: int, name: str) -> tuple[Matrix, ...]:
    """A gated layer beside the experts, which every token passes."""
    return gated_mlp(width, inner, f"mlp.{name}", way="shared")


def mixtral(config: Config) -> Anatomy:
    """MixtralForCausalLM: experts in every layer."""
    config = filled(config, num_key_value_heads=8, num_experts_per_tok=2)
    behind = routed(
        config["hidden_size"], config["intermediate_size"], _experts(config, 8), config["num_experts_per_tok"]
    )
    return decoder(config, seen=windows(config), feed_forward=lambda _: behind)


def olmoe(config: Config) -> Anatomy:
    """OlmoeForCausalLM: experts in every layer; norms of whole queries and keys."""
    config = filled(config, num_experts_per_tok=8)
    bias = bool(config.get("attention_bias"))
    behind = routed(
        config["hidden_size"], config["intermediate_size"], _experts(config, 64), config["num_experts_per_tok"]
    )
    return decoder(
        config, bias=bias, out_bias=bias, attention_vectors=whole_norms(config), feed_forward=lambda _: behind
    )


def qwen2_moe(config: Config) -> Anatomy:
    """Qwen2MoeForCausalLM: beside the experts a shared one, weighed by a gate of its own."""
    config = filled(
        config,
        num_key_value_heads=16,
        num_experts_per_tok=4,
        moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632,
        qkv_bias=True,
        sliding_window=4096,
        use_sliding_window=False,
        max_window_layers=28,
    )
    width = config["hidden_size"]
    beside = (
        *shared(width, config["shared_expert_intermediate_size"], "shared_expert"),
        Matrix("mlp.shared_expert_gate", width, 1, 3, way="gate"),
    )
    return decoder(
        config,
        bias=bool(config["qkv_bias"]),
        seen=windows(config, lambda layer: layer % 2 == 0 and layer < config["max_window_layers"]),
        feed_forward=_sometimes(config, _experts(config, 60), beside),
    )


def qwen3_moe(config: Config) -> Anatomy:
    """Qwen3MoeForCausalLM: heads of a size of their own, norms of queries and keys, no shared expert."""
    config = filled(
        config,
        num_key_value_heads=4,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        sliding_window=4096,
        use_sliding_window=False,
    )
    bias = bool(config.get("attention_bias"))
    return decoder(
        config,
        bias=bias,
        out_bias=bias,
        seen=windows(config),
        attention_vectors=per_head_norms(config),
        feed_forward=_sometimes(config, _experts(config, 128)),
    )


def _experts(config: Config, default: int) -> int:
    """How many there are; transformers saves some of its `num_experts` as `num_local_experts`."""
    return int(config["num_local_experts"] if "num_local_experts" in config else config.get("num_experts", default))


def _sometimes(config: Config, experts: int, beside: tuple[Matrix, ...] = ()) -> Layer:
    """Experts in every `decoder_sparse_step`-th layer but those in `mlp_only_layers`."""
    width, step = config["hidden_size"], config.get("decoder_sparse_step", 1)
    without = config.get("mlp_only_layers") or []
    sparse = routed(width, config["moe_intermediate_size"], experts, config["num_experts_per_tok"]) + beside

    def layer(index: int) -> tuple[Matrix, ...]:
        if experts and index not in without and (index + 1) % step == 0:
            return sparse
        return gated_mlp(width, config["intermediate_size"])

    return layer
