"""Tiny members of every family with attention in all its layers, and what runs in them."""

from __future__ import annotations

from typing import Any

from tasks.design import Design
from tasks.training.flops import counting

VOCAB, WINDOW = 320, 16
SIZES = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 3, "max_position_embeddings": 64}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
LATENT = {
    "num_attention_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
    "moe_intermediate_size": 32,
}
GROUPS = {"n_routed_experts": 8, "n_group": 4, "topk_group": 2, "num_experts_per_tok": 3, "n_shared_experts": 2}
SPARSE = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilellm": ("mobilellm", HEADS),
    "mistral": ("mistral", {**HEADS, "sliding_window": WINDOW}),
    "olmo3": ("olmo3", {**HEADS, "sliding_window": WINDOW, "sliding_window_pattern": 2, "rope_theta": 5000.0}),
    "deepseek_v3": ("deepseek_v3", LATENT),
    "deepseek_v3, plain queries": ("deepseek_v3", {**LATENT, "q_lora_rank": None}),
    "deepseek_v3, experts": ("deepseek_v3", {**LATENT, **GROUPS, "first_k_dense_replace": 1}),
    "mixtral": ("mixtral", {**HEADS, "num_local_experts": 5}),
    "olmoe": ("olmoe", {**HEADS, "num_experts": 9, "num_experts_per_tok": 3}),
    "qwen2_moe": ("qwen2_moe", {**HEADS, **SPARSE, "shared_expert_intermediate_size": 56}),
    "qwen2_moe, some dense": ("qwen2_moe", {**HEADS, **SPARSE, "decoder_sparse_step": 2, "qkv_bias": False}),
    "qwen3_moe": ("qwen3_moe", {**HEADS, **SPARSE, "head_dim": 40}),
    "qwen3_moe, some dense": (
        "qwen3_moe",
        {**HEADS, **SPARSE, "mlp_only_layers": [0, 2], "tie_word_embeddings": False},
    ),
}


def blueprint(case: str) -> dict[str, Any]:
    """The config of a tiny member of a family."""
    method, fields = CASES[case]
    made: dict[str, Any] = Design.techniques()[method](**{**SIZES, **fields}).config(VOCAB)  # type: ignore[attr-defined]
    return made


def ids(length: int) -> Any:
    """Random tokens, always the same."""
    import torch

    return torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(1))


def flops(model: Any, length: int, backward: bool) -> float:
    """FLOPs of the operators that run in one sequence."""
    with counting() as counter:
        loss = model(input_ids=ids(length), labels=ids(length), use_cache=False).loss
        if backward:
            loss.backward()
    return counter.total
