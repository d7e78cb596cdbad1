"""Multi-head latent attention: keys and values are kept compressed. Dense unless it is given experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tasks.design.decoder import rounded
from tasks.design.experts import check_experts
from tasks.design.family import Family, heads_of


class DeepseekV3(Family):
    """Latent attention: one small vector per token stands for every head's key and value (arXiv:2412.19437).

    All layers are dense by default; `first_k_dense_replace: 1` gives experts to all but the first. They are balanced by
    a bias on their scores, which training moves (arXiv:2408.15664), instead of an auxiliary loss: there is no
    `router_aux_loss_coef`.
    """

    model_type: ClassVar[str] = "deepseek_v3"
    architecture: ClassVar[str] = "DeepseekV3ForCausalLM"

    hidden_size: PositiveInt = 256
    """Width of the residual stream."""
    intermediate_size: PositiveInt = 704
    """Width of a dense feed-forward layer."""
    num_hidden_layers: PositiveInt = 6
    """Number of decoder layers."""
    num_attention_heads: PositiveInt = 4
    """Heads; each has keys and values of its own, expanded from the latent."""
    q_lora_rank: PositiveInt | None = 128
    """Size queries are compressed to; null: they aren't."""
    kv_lora_rank: PositiveInt = 64
    """Size keys and values are compressed to: what the cache keeps of a token, beside the rotary key."""
    qk_nope_head_dim: PositiveInt = 64
    """Part of a head's query and key that knows no position."""
    qk_rope_head_dim: PositiveInt = 32
    """Rotary part of a head's query; the rotary key is one for all heads. Even."""
    v_head_dim: PositiveInt = 64
    """Size of a head's value."""
    first_k_dense_replace: NonNegativeInt | None = None
    """Layers at the start that are dense, the others have experts; null: all are dense and have none."""
    n_routed_experts: PositiveInt = 8
    """Experts of a layer that has some."""
    num_experts_per_tok: PositiveInt = 2
    """Experts a token is sent to."""
    n_shared_experts: PositiveInt = 1
    """Experts that every token passes."""
    moe_intermediate_size: PositiveInt = 128
    """Width of an expert."""
    n_group: PositiveInt = 1
    """Groups of experts; a token is sent to the experts of its best `topk_group` groups only."""
    topk_group: PositiveInt = 1
    """Groups a token's experts are chosen from."""
    norm_topk_prob: bool = True
    """Let the weights of a token's experts sum to one."""
    routed_scaling_factor: float = Field(default=2.5, gt=0)
    """What the chosen experts' sum is multiplied by."""
    max_position_embeddings: PositiveInt = 1024
    """Longest context."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary frequencies."""
    tie_word_embeddings: bool = True
    """Share the input embedding with the output layer."""

    @model_validator(mode="after")
    def _rotary(self) -> Self:
        if self.qk_rope_head_dim % 2:
            raise ValueError(f"qk_rope_head_dim {self.qk_rope_head_dim} must be even for rotary positions")
        return self

    @model_validator(mode="after")
    def _groups(self) -> Self:
        check_experts(self.num_experts_per_tok, self.n_routed_experts, "n_routed_experts")
        if self.n_routed_experts % self.n_group:
            raise ValueError(f"n_routed_experts {self.n_routed_experts} is not divisible by n_group {self.n_group}")
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group {self.topk_group} is above n_group {self.n_group}")
        size = self.n_routed_experts // self.n_group
        if size < 2:
            raise ValueError(
                f"n_group {self.n_group} of n_routed_experts {self.n_routed_experts} leaves {size} expert a group; a "
                "group is judged by its best two"
            )
        if self.num_experts_per_tok > size * self.topk_group:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} is above the {size * self.topk_group} experts of "
                f"topk_group {self.topk_group} groups: raise topk_group, or lower n_group"
            )
        return self

    def config_fields(self) -> dict[str, Any]:
        """As they are; no layers for predicting further tokens, which transformers doesn't train."""
        dense = self.first_k_dense_replace
        return {
            **super().config_fields(),
            "num_key_value_heads": self.num_attention_heads,
            "first_k_dense_replace": self.num_hidden_layers if dense is None else dense,
            "num_nextn_predict_layers": 0,
        }

    def ladder(self) -> Iterator[Self]:
        """From small to large; queries that aren't compressed stay so."""
        for member in super().ladder():
            yield member if self.q_lora_rank else member.model_copy(update={"q_lora_rank": None})

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """One head per 64 of width, depth near width / 48, queries compressed to half the width, keys to a quarter."""
        sizes = heads_of(width)
        del sizes["num_key_value_heads"]
        return {
            **sizes,
            "q_lora_rank": rounded(width / 2),
            "kv_lora_rank": rounded(width / 4),
            "moe_intermediate_size": rounded(width / 2),
        }
