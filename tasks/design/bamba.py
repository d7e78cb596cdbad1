"""Hybrid: mostly a state-space model, with attention in between for what has to be looked up word for word."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import NonNegativeInt, PositiveInt, model_validator

from tasks.design.decoder import Decoder
from tasks.design.family import check_recurrence, heads_of


class Bamba(Decoder):
    """Hybrid of Mamba-2 and attention, interleaved, a gated feed-forward layer behind each (arXiv:2403.19887)."""

    model_type: ClassVar[str] = "bamba"
    architecture: ClassVar[str] = "BambaForCausalLM"

    intermediate_size: PositiveInt = 512
    """Width of the feed-forward layers."""
    attn_layer_period: PositiveInt = 3
    """Every so many layers one attends, the others are Mamba-2; 1: all attend."""
    attn_layer_offset: NonNegativeInt = 2
    """The first layer that attends, counted from 0."""
    mamba_expand: PositiveInt = 2
    """Width of the Mamba-2 mixer, in widths of the residual stream."""
    mamba_n_heads: PositiveInt = 8
    """Heads of the recurrence."""
    mamba_d_head: PositiveInt = 64
    """Channels of such a head; mamba_n_heads x mamba_d_head = mamba_expand x hidden_size."""
    mamba_d_state: PositiveInt = 64
    """Numbers kept for each channel."""
    mamba_n_groups: PositiveInt = 1
    """Groups of heads that share what they write and read (B and C)."""
    mamba_d_conv: PositiveInt = 4
    """Tokens the short convolution before the recurrence sees."""
    mamba_chunk_size: PositiveInt = 64
    """Tokens computed at once as products; the last chunk of a sequence is filled up."""

    @model_validator(mode="after")
    def _both_kinds(self) -> Self:
        check_recurrence(
            ("mamba_expand", self.mamba_expand),
            self.hidden_size,
            ("mamba_n_heads", self.mamba_n_heads),
            ("mamba_d_head", self.mamba_d_head),
            ("mamba_n_groups", self.mamba_n_groups),
        )
        if self.attn_layer_offset >= self.attn_layer_period:
            raise ValueError(
                f"attn_layer_offset {self.attn_layer_offset} must be below attn_layer_period {self.attn_layer_period}"
            )
        if not self._attending:
            raise ValueError(
                f"no layer attends: attn_layer_offset {self.attn_layer_offset} is beyond the last of "
                f"{self.num_hidden_layers} layers; lower it, or take mamba2"
            )
        return self

    @property
    def _attending(self) -> list[int]:
        return list(range(self.attn_layer_offset, self.num_hidden_layers, self.attn_layer_period))

    def config_fields(self) -> dict[str, Any]:
        """The period becomes the list of layers that transformers takes."""
        fields = super().config_fields()
        for name in ("attn_layer_period", "attn_layer_offset"):
            del fields[name]
        return {**fields, "attn_layer_indices": self._attending}

    @classmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Heads of 64, depth near width / 48 and never so shallow that no layer attends."""
        common = heads_of(width)
        return {
            **common,
            "intermediate_size": 2 * width,
            "num_hidden_layers": max(3, common["num_hidden_layers"]),
            "mamba_expand": 2,
            "mamba_n_heads": width // 32,
            "mamba_d_head": 64,
        }
