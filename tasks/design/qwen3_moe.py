"""Mixture of experts, none shared, with normed queries and keys."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import PositiveInt

from tasks.design.decoder import rounded
from tasks.design.experts import Sparse
from tasks.design.family import heads_of


class Qwen3Moe(Sparse):
    """Mixture of narrow experts, heads of a size of their own, normed queries and keys (arXiv:2505.09388)."""

    model_type: ClassVar[str] = "qwen3_moe"
    architecture: ClassVar[str] = "Qwen3MoeForCausalLM"

    head_dim: PositiveInt = 64
    """Size of a head; all of them needn't be as wide as the model."""
    norm_topk_prob: bool = True
    """Let the weights of a token's experts sum to one."""

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """One head per 64 of width, depth near width / 48, experts half as wide as the model."""
        return {**heads_of(width), "moe_intermediate_size": rounded(width / 2)}
