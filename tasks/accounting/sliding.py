"""Dense decoders whose layers see a window, everything, or a mix of both.

Upstream's defaults are filled in: a config.json may leave out what equals them.
"""

from __future__ import annotations

from tasks.accounting.anatomy import Anatomy
from tasks.accounting.attention import gated_mlp
from tasks.accounting.decoder import decoder, filled, per_head_norms, whole_norms, windows
from tasks.models import Config


def mistral(config: Config) -> Anatomy:
    """MistralForCausalLM: one window for all layers, or none."""
    config = filled(config, sliding_window=4096, num_key_value_heads=8)
    return decoder(config, seen=windows(config))


def olmo3(config: Config) -> Anatomy:
    """Olmo3ForCausalLM: three local layers, one global; norms of whole queries and keys."""
    config = filled(config, sliding_window=4096)
    bias = bool(config.get("attention_bias"))
    return decoder(
        config,
        bias=bias,
        out_bias=bias,
        seen=windows(config, lambda layer: (layer + 1) % 4 != 0),
        attention_vectors=whole_norms(config),
    )


def qwen2(config: Config) -> Anatomy:
    """Qwen2ForCausalLM: queries, keys and values add a vector; the last layers may have a window."""
    config = filled(config, num_key_value_heads=32, sliding_window=4096, use_sliding_window=False, max_window_layers=28)
    return decoder(config, bias=True, seen=windows(config, lambda layer: layer >= config["max_window_layers"]))


def qwen3(config: Config) -> Anatomy:
    """Qwen3ForCausalLM: heads of a size of their own, with norms of queries and keys."""
    config = filled(
        config,
        head_dim=128,
        num_key_value_heads=32,
        sliding_window=4096,
        use_sliding_window=False,
        max_window_layers=28,
    )
    bias = bool(config.get("attention_bias"))
    return decoder(
        config,
        bias=bias,
        out_bias=bias,
        seen=windows(config, lambda layer: layer >= config["max_window_layers"]),
        attention_vectors=per_head_norms(config),
    )


def smollm3(config: Config) -> Anatomy:
    """SmolLM3ForCausalLM: layers without rotary positions are the ones that may have a window."""
    config = filled(
        config, num_key_value_heads=4, use_sliding_window=False, no_rope_layer_interval=4, tie_word_embeddings=True
    )
    width, rotary = config["hidden_size"], config.get("no_rope_layers")
    bias, every = bool(config.get("attention_bias")), config["no_rope_layer_interval"]

    def local(layer: int) -> bool:
        return not rotary[layer] if rotary else (layer + 1) % every == 0

    behind = gated_mlp(width, config["intermediate_size"], bias=bool(config.get("mlp_bias")))
    return decoder(config, bias=bias, out_bias=bias, seen=windows(config, local), feed_forward=lambda _: behind)


def gemma2(config: Config) -> Anatomy:
    """Gemma2ForCausalLM: every second layer is local; norms before and behind both parts."""
    config = _gemma(config)
    bias = bool(config.get("attention_bias"))
    seen = windows(config, lambda layer: (layer + 1) % 2 != 0)
    return decoder(config, bias=bias, out_bias=bias, seen=seen, norms=4)


def gemma3_text(config: Config) -> Anatomy:
    """Gemma3ForCausalLM: five local layers, one global; also norms of queries and keys."""
    config = filled(_gemma(config), sliding_window_pattern=6)
    bias = bool(config.get("attention_bias"))
    return decoder(
        config,
        bias=bias,
        out_bias=bias,
        seen=windows(config, lambda layer: (layer + 1) % config["sliding_window_pattern"] != 0),
        norms=4,
        attention_vectors=per_head_norms(config),
    )


def _gemma(config: Config) -> Config:
    return filled(config, head_dim=256, num_key_value_heads=4, sliding_window=4096, tie_word_embeddings=True)
