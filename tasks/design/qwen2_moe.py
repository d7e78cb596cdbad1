"""Mixture of experts with one that every token passes."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from tasks.design.decoder import rounded
from tasks.design.experts import Sparse
from tasks.design.family import heads_of


class Qwen2Moe(Sparse):
    """Mixture of narrow experts and a shared one that every token passes (arXiv:2407.10671)."""

    model_type: ClassVar[str] = "qwen2_moe"
    architecture: ClassVar[str] = "Qwen2MoeForCausalLM"

    num_experts_per_tok: PositiveInt = 4
    """Experts a token is sent to, beside the shared one."""
    moe_intermediate_size: PositiveInt = 64
    """Width of an expert."""
    shared_expert_intermediate_size: PositiveInt = 256
    """Width of the shared expert, which a gate of its own weighs."""
    qkv_bias: bool = True
    """Add a vector to queries, keys and values."""

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48, the shared expert as wide as the model, the others a quarter."""
        return {
            **heads_of(width),
            "moe_intermediate_size": rounded(width / 4),
            "shared_expert_intermediate_size": rounded(width),
        }
