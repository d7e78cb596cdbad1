"""What families with experts share: how many there are, how many a token is sent to, how they are kept busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from tasks.design.decoder import Decoder
from tasks.design.family import WIDTHS


def check_experts(active: int, total: int, field: str) -> None:
    """Refuse to send a token to more experts than there are.

    Raises:
        ValueError: names the fields and both numbers.
    """
    if active > total:
        raise ValueError(f"num_experts_per_tok {active} is above {field} {total}: a token goes to each at most once")


class Experts(Decoder):
    """A decoder whose feed-forward layers are experts, of which a token passes the few its router picks."""

    count_field: ClassVar[str] = "num_experts"
    """Field that holds the number of experts."""

    num_experts_per_tok: PositiveInt = 2
    """Experts a token is sent to."""
    router_aux_loss_coef: float = Field(default=0.001, ge=0)
    """Weight of the loss that spreads tokens over the experts (arXiv:2101.03961); 0: none."""

    @model_validator(mode="after")
    def _enough(self) -> Self:
        check_experts(self.num_experts_per_tok, getattr(self, self.count_field), self.count_field)
        return self


class Sparse(Experts):
    """Experts in some layers, dense feed-forward layers in the others: the Qwen families."""

    intermediate_size: PositiveInt = 704
    """Width of the feed-forward layer where there are no experts."""
    num_experts: PositiveInt = 8
    """Experts of a layer."""
    moe_intermediate_size: PositiveInt = 128
    """Width of an expert."""
    norm_topk_prob: bool = False
    """Let the weights of a token's experts sum to one."""
    decoder_sparse_step: PositiveInt = 1
    """Every so many layers one has experts; 1: all."""
    mlp_only_layers: tuple[NonNegativeInt, ...] = ()
    """Layers without experts, counted from 0."""

    @model_validator(mode="after")
    def _sparse_somewhere(self) -> Self:
        beyond = [layer for layer in self.mlp_only_layers if layer >= self.num_hidden_layers]
        if beyond:
            raise ValueError(f"mlp_only_layers {beyond}: there are {self.num_hidden_layers} layers, counted from 0")
        if not _has_experts(self.num_hidden_layers, self.decoder_sparse_step, self.mlp_only_layers):
            raise ValueError(
                f"decoder_sparse_step {self.decoder_sparse_step} and mlp_only_layers {list(self.mlp_only_layers)} leave none "
                f"of {self.num_hidden_layers} layers with experts: lower them, or take a dense family"
            )
        return self

    def ladder(self) -> Iterator[Self]:
        """Those deep enough to have experts; dense layers that a shallow one lacks are left out of its list."""
        for width in WIDTHS:
            sizes = self.sizes(width)
            depth = sizes["num_hidden_layers"]
            dense = [layer for layer in self.mlp_only_layers if layer < depth]
            if _has_experts(depth, self.decoder_sparse_step, dense):
                changed: dict[str, Any] = {**sizes, "mlp_only_layers": dense, "parameters": None}
                yield self.model_validate({**self.model_dump(mode="json"), **changed})


def _has_experts(depth: int, step: int, dense: Sequence[int]) -> bool:
    return any((layer + 1) % step == 0 and layer not in dense for layer in range(depth))
