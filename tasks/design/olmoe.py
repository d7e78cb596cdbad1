"""Mixture of many narrow experts."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from tasks.design.decoder import rounded
from tasks.design.experts import Experts
from tasks.design.family import heads_of


class Olmoe(Experts):
    """Mixture of experts: many narrow ones in every layer, normed queries and keys (arXiv:2409.02060)."""

    model_type: ClassVar[str] = "olmoe"
    architecture: ClassVar[str] = "OlmoeForCausalLM"

    intermediate_size: PositiveInt = 64
    """Width of an expert."""
    num_experts: PositiveInt = 16
    """Experts of a layer."""
    num_experts_per_tok: PositiveInt = 4
    """Experts a token is sent to."""
    norm_topk_prob: bool = False
    """Let the weights of a token's experts sum to one."""
    router_aux_loss_coef: float = Field(default=0.01, ge=0)
    """Weight of the loss that spreads tokens over the experts (arXiv:2101.03961); 0: none."""

    def config_fields(self) -> dict[str, Any]:
        """As they are; no padding token: transformers' default, 1, is a token here, and its embedding would stay 0."""
        return {**super().config_fields(), "pad_token_id": None}

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48, experts a quarter as wide as the model; how many stays as it is."""
        return {**heads_of(width), "intermediate_size": rounded(width / 4)}
