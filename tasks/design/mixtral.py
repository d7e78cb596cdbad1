"""Mixture of a few wide experts."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, PositiveInt

from tasks.design.decoder import rounded
from tasks.design.experts import Experts
from tasks.design.family import heads_of


class Mixtral(Experts):
    """Mixture of experts: a few wide ones in every layer, each token goes to two (arXiv:2401.04088)."""

    model_type: ClassVar[str] = "mixtral"
    architecture: ClassVar[str] = "MixtralForCausalLM"
    count_field: ClassVar[str] = "num_local_experts"

    intermediate_size: PositiveInt = 256
    """Width of an expert."""
    num_local_experts: PositiveInt = 4
    """Experts of a layer."""
    router_aux_loss_coef: float = Field(default=0.02, ge=0)
    """Weight of the loss that spreads tokens over the experts (arXiv:2101.03961); 0: none."""

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48, experts as wide as the model; how many stays as it is."""
        return {**heads_of(width), "intermediate_size": rounded(width)}
