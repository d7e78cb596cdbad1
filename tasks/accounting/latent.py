"""Multi-head latent attention (arXiv:2405.04434): what is kept of a token is one small vector for all heads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks.accounting.anatomy import Anatomy, Block, Matrix
from tasks.accounting.attention import Attention, gated_mlp
from tasks.accounting.decoder import assemble, filled
from tasks.accounting.experts import routed, shared
from tasks.models import Config


@dataclass(frozen=True)
class Latent(Attention):
    """Scores over keys and values that are expanded from the latent.

    transformers keeps the latent and the rotary key, `kv_lora_rank + qk_rope_head_dim` numbers a token, as the paper
    does. Unlike the paper, which folds the expansion into queries and outputs, it expands every kept token anew at
    each step, so that a decoded token costs `expansion` FLOPs for every token before it.

    Attributes:
        expansion: FLOPs of one token's keys and values, from its latent.
    """

    expansion: int = 0

    def decode_flops(self, position: int) -> float:
        """Scores of one query, and the expansion of what is kept; that of the token itself is the matrix's."""
        return super().decode_flops(position) + self.expansion * max(0, position - 1)


def deepseek_v3(config: Config) -> Anatomy:
    """DeepseekV3ForCausalLM: dense layers first, then such with experts and shared ones."""
    config = filled(
        config,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        first_k_dense_replace=3,
        n_routed_experts=256,
        num_experts_per_tok=8,
        n_shared_experts=1,
        moe_intermediate_size=2048,
    )
    width, inner = config["hidden_size"], config["moe_intermediate_size"]
    attention, scores, vectors = _attention(config)
    dense = tuple(replace(m, order=m.order + 1) for m in gated_mlp(width, config["intermediate_size"]))
    sparse = tuple(
        replace(m, order=m.order + 1)
        for m in routed(width, inner, config["n_routed_experts"], config["num_experts_per_tok"])
        + shared(width, inner * config["n_shared_experts"], "shared_experts")
    )
    return assemble(
        config,
        tuple(
            Block(
                f"model.layers.{i}",
                attention + (dense if i < config["first_k_dense_replace"] else sparse),
                (scores,),
                2 * width + vectors,
            )
            for i in range(config["num_hidden_layers"])
        ),
    )


def _attention(config: Config) -> tuple[tuple[Matrix, ...], Latent, int]:
    """Its matrices, its scores, and the weights of the norms of what is compressed."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    compressed, rank = config["q_lora_rank"], config["kv_lora_rank"]
    rotary, plain, value = config["qk_rope_head_dim"], config["qk_nope_head_dim"], config["v_head_dim"]
    key, bias = plain + rotary, bool(config.get("attention_bias"))
    queries = (
        (
            Matrix("self_attn.q_a_proj", width, compressed, 0, bias, way="queries"),
            Matrix("self_attn.q_b_proj", compressed, heads * key, 1, way="queries"),
        )
        if compressed
        else (Matrix("self_attn.q_proj", width, heads * key, 0, way="queries"),)
    )
    expand = Matrix("self_attn.kv_b_proj", rank, heads * (plain + value), 1, way="keys")
    matrices = (
        *queries,
        Matrix("self_attn.kv_a_proj_with_mqa", width, rank + rotary, 0, bias, way="keys"),
        expand,
        Matrix("self_attn.o_proj", heads * value, width, 3, bias),
    )
    scores = Latent(heads, key, value, rank + rotary, None, 2, expand.flops)
    return matrices, scores, (compressed or 0) + rank
