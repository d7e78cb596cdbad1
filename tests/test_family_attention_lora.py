"""LoRA in families with windows, latents and experts: exact arithmetic. And every family's bad input."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.accounting import lora
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.design import Design
from tasks.finetune.lora import Lora
from tasks.models.load import new_model
from tests.attention_families import blueprint, flops
from tests.models import adapted

QUERIES: list[str | list[str]] = ["all-linear", ["q_proj", "v_proj"], ["v_proj"], ["o_proj"]]
ADAPTED: list[tuple[str, str | list[str]]] = [
    *(("mistral", targets) for targets in QUERIES),
    *(("olmo3", targets) for targets in QUERIES),
    *(("qwen3_moe", targets) for targets in QUERIES),
    *(("mixtral", targets) for targets in QUERIES),
    ("deepseek_v3", "all-linear"),
    ("deepseek_v3", ["q_a_proj"]),
    ("deepseek_v3", ["q_b_proj"]),
    ("deepseek_v3", ["kv_a_proj_with_mqa", "q_b_proj"]),
    ("deepseek_v3", ["kv_b_proj"]),
    ("deepseek_v3, experts", "all-linear"),
    ("deepseek_v3, plain queries", ["q_proj"]),
    ("qwen2_moe", "all-linear"),
    ("qwen2_moe", ["shared_expert_gate"]),
    ("qwen2_moe", ["shared_expert.gate_proj"]),
    ("qwen2_moe, some dense", ["down_proj"]),
]


@pytest.mark.parametrize(("case", "targets"), ADAPTED, ids=str)
def test_lora_flops_are_those_of_the_operators_that_run(case: str, targets: str | list[str]) -> None:
    """Trainable weights are peft's; through windows, latents and frozen experts only what leads to them is computed."""
    config, length, r = blueprint(case), 24, 5
    model = adapted(Lora(r=r, target_modules=targets), new_model(config, 0)).train()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert lora.trainable_parameters(config, r, targets) == trained
    predicted = length * lora.training_flops_per_token(config, length, r, targets)
    assert flops(model, length, backward=True) == pytest.approx(predicted, rel=0.005)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("mistral", {"num_attention_heads": 3}, "256 is not divisible by num_attention_heads 3"),
    ("mistral", {"sliding_window": 0}, "design.mistral.sliding_window: found 0"),
    ("mistral", {"sliding_window": 2048}, "2048 is above max_position_embeddings 1024"),
    ("olmo3", {"sliding_window": 2048}, "above max_position_embeddings"),
    ("olmo3", {"sliding_window_pattern": 1}, "greater than or equal to 2"),
    ("olmo3", {"num_key_value_heads": 3}, "not divisible by num_key_value_heads 3"),
    ("mobilellm", {"num_attention_heads": 128}, "even for rotary"),
    ("mixtral", {"num_experts_per_tok": 5}, "num_experts_per_tok 5 is above num_local_experts 4"),
    ("mixtral", {"num_experts": 8}, "design.mixtral.num_experts: unknown parameter"),
    ("mixtral", {"router_aux_loss_coef": -1}, "greater than or equal to 0"),
    ("olmoe", {"num_experts": 3}, "num_experts_per_tok 4 is above num_experts 3"),
    ("qwen2_moe", {"num_experts_per_tok": 9}, "above num_experts 8"),
    ("qwen2_moe", {"mlp_only_layers": [6]}, "there are 6 layers, counted from 0"),
    ("qwen2_moe", {"decoder_sparse_step": 7}, "leave none of 6 layers with experts"),
    ("qwen3_moe", {"mlp_only_layers": [0, 1, 2, 3, 4, 5]}, "take a dense family"),
    ("qwen3_moe", {"head_dim": 33}, "even for rotary"),
    ("deepseek_v3", {"qk_rope_head_dim": 15}, "qk_rope_head_dim 15 must be even"),
    ("deepseek_v3", {"kv_lora_rank": 0}, "design.deepseek_v3.kv_lora_rank: found 0"),
    ("deepseek_v3", {"num_experts_per_tok": 9}, "above n_routed_experts 8"),
    ("deepseek_v3", {"n_group": 3}, "n_routed_experts 8 is not divisible by n_group 3"),
    ("deepseek_v3", {"n_group": 8}, "leaves 1 expert a group"),
    ("deepseek_v3", {"n_group": 2, "topk_group": 3}, "topk_group 3 is above n_group 2"),
    ("deepseek_v3", {"n_group": 4, "num_experts_per_tok": 3}, "above the 2 experts of topk_group 1"),
    ("deepseek_v3", {"router_aux_loss_coef": 0.1}, "unknown parameter"),
]


@pytest.mark.parametrize(("method", "values", "said"), BAD)
def test_bad_sizes_are_refused_in_words(method: str, values: dict[str, Any], said: str) -> None:
    """What was found, and what is allowed."""
    with pytest.raises(UserError, match=said):
        validate(Design, {method: values}, "design")
