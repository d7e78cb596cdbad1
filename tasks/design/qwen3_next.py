"""Linear attention with a memory it corrects, full attention every few layers, and experts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tasks.design.decoder import Decoder, rounded
from tasks.design.experts import check_experts
from tasks.design.family import WIDTHS, heads_of


class Qwen3Next(Decoder):
    """Gated DeltaNet, gated full attention every few layers, experts and a shared one, or dense (arXiv:2412.06464)."""

    model_type: ClassVar[str] = "qwen3_next"
    architecture: ClassVar[str] = "Qwen3NextForCausalLM"

    head_dim: PositiveInt = 64
    """Size of a head of full attention; a quarter of it turns with the position."""
    full_attention_interval: PositiveInt = 3
    """Every so many layers one attends in full, the others linearly; 1: all in full."""
    linear_num_key_heads: PositiveInt = 2
    """Heads of queries and keys of the linear attention."""
    linear_num_value_heads: PositiveInt = 4
    """Its heads of values, each with a state."""
    linear_key_head_dim: PositiveInt = 64
    """Size of its keys."""
    linear_value_head_dim: PositiveInt = 64
    """Size of its values."""
    linear_conv_kernel_dim: PositiveInt = 4
    """Tokens the short convolution before it sees."""
    num_experts: NonNegativeInt = 8
    """Experts of a layer; 0: dense feed-forward layers of `intermediate_size`."""
    num_experts_per_tok: PositiveInt = 2
    """Experts a token is sent to, beside the shared one."""
    moe_intermediate_size: PositiveInt = 64
    """Width of an expert."""
    shared_expert_intermediate_size: PositiveInt = 128
    """Width of the expert every token passes."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Weight of the loss that spreads tokens over the experts (arXiv:2101.03961); 0: none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.num_experts:
            check_experts(self.num_experts_per_tok, self.num_experts, "num_experts")
        if self.linear_num_value_heads % self.linear_num_key_heads:
            raise ValueError(
                f"linear_num_value_heads {self.linear_num_value_heads} is not divisible by "
                f"linear_num_key_heads {self.linear_num_key_heads}"
            )
        if self.num_hidden_layers < self.full_attention_interval:
            raise ValueError(
                f"full_attention_interval {self.full_attention_interval} is above num_hidden_layers "
                f"{self.num_hidden_layers}: no layer attends in full, and transformers' cache needs one that does"
            )
        if self.head_dim % 8:
            raise ValueError(f"head_dim {self.head_dim} is not divisible by 8: a quarter of it turns, in pairs")
        return self

    def config_fields(self) -> dict[str, Any]:
        """The interval becomes the kind of every layer."""
        fields = super().config_fields()
        every = fields.pop("full_attention_interval")
        kinds = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(self.num_hidden_layers)]
        return {**fields, "layer_types": kinds}

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48, experts a quarter as wide as the model, the shared one half as wide."""
        heads = width // 64
        return {
            **heads_of(width),
            "head_dim": 64,
            "linear_num_value_heads": heads,
            "linear_num_key_heads": heads // 2 if heads % 2 == 0 else heads,
            "moe_intermediate_size": rounded(width / 4),
            "shared_expert_intermediate_size": rounded(width / 2),
        }

    def ladder(self) -> Iterator[Self]:
        """Those of `sizes`, never so shallow that no layer attends in full."""
        for width in WIDTHS:
            sizes = self.sizes(width)
            sizes["num_hidden_layers"] = max(self.full_attention_interval, sizes["num_hidden_layers"])
            yield self.model_validate({**self.model_dump(mode="json"), **sizes, "parameters": None})
