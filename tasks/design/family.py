"""What architecture families share: a size on request, and a config out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import PositiveInt, ValidationError

from tasks.accounting import parameters
from tasks.core.schema import Technique
from tasks.models import Config

WIDTHS = range(64, 8193, 64)
"""Widths a model is sized to: multiples of 64, that quantizers' groups and tensor cores like."""


class Family(Technique):
    """An architecture family: fields in upstream's words, a transformers config out."""

    model_type: ClassVar[str]
    """transformers' name of the architecture; `tasks.accounting.READERS` knows it."""
    architecture: ClassVar[str]
    """transformers' class, e.g. `LlamaForCausalLM`."""

    parameters: PositiveInt | None = None
    """Parameter budget: sizes are chosen as the largest that fits; null: the sizes below are used as they are."""

    def blueprint(self, vocab_size: int, init: Path) -> Config:
        """The transformers config of this model with `vocab_size` tokens; `init` isn't read.

        Raises:
            ValueError: `parameters` is smaller than the smallest model of this family with that vocabulary.
        """
        return (self if self.parameters is None else self._largest(vocab_size)).config(vocab_size)

    def config(self, vocab_size: int) -> Config:
        """The config with the sizes as they are."""
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "vocab_size": vocab_size,
            **self.config_fields(),
        }

    def config_fields(self) -> dict[str, Any]:
        """Fields of the config, by transformers' names; those of the class are, unless a family says otherwise."""
        return self.model_dump(mode="json", exclude={"parameters"})

    @classmethod
    @abstractmethod
    def sizes(cls, width: int) -> dict[str, Any]:
        """Fields of a well-proportioned member of the family that is `width` wide (a multiple of 64)."""

    def ladder(self) -> Iterator[Self]:
        """Members of the family from small to large; what `sizes` leaves alone is kept.

        Widths too small for what is kept (more groups than heads, no layer that attends) are passed over.
        """
        kept = self.model_dump(mode="json")
        for width in WIDTHS:
            with suppress(ValidationError):
                yield self.model_validate({**kept, **self.sizes(width), "parameters": None})

    def _largest(self, vocab_size: int) -> Self:
        best, smallest = None, 0
        for candidate in self.ladder():
            size = parameters(candidate.config(vocab_size))
            smallest = smallest or size
            if size > (self.parameters or 0):
                break
            best = candidate
        if not smallest:
            raise ValueError("parameters: no width of this family suits its other fields as they are set")
        if best is None:
            raise ValueError(
                f"parameters: found {self.parameters}; the smallest of this family with a vocabulary of {vocab_size} "
                f"has {smallest}: raise it, or lower data.tokenizer.train.vocab_size"
            )
        return best


def check_heads(hidden_size: int, heads: int, key_heads: int, head_dim: int | None = None) -> None:
    """Refuse head counts that don't divide.

    Raises:
        ValueError: names the fields and both numbers.
    """
    if head_dim is None and hidden_size % heads:
        raise ValueError(f"hidden_size {hidden_size} is not divisible by num_attention_heads {heads}")
    if heads % key_heads:
        raise ValueError(f"num_attention_heads {heads} is not divisible by num_key_value_heads {key_heads}")
    if (head_dim or hidden_size // heads) % 2:
        raise ValueError("the size of a head (hidden_size / num_attention_heads) must be even for rotary positions")


def heads_of(width: int) -> dict[str, int]:
    """Heads of 64, two queries to a key where that divides, SwiGLU of 8/3 the width, depth near width / 48."""
    heads = width // 64
    return {
        "hidden_size": width,
        "intermediate_size": (width * 8 // 3 + 63) // 64 * 64,
        "num_hidden_layers": max(2, round(width / 48)),
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2 if heads % 2 == 0 else heads,
    }


def check_recurrence(
    expand: tuple[str, int],
    hidden_size: int,
    heads: tuple[str, int],
    head_dim: tuple[str, int],
    groups: tuple[str, int],
) -> None:
    """Refuse heads that don't make up the mixer's width, and groups that don't divide the heads.

    Args:
        expand: name of the field and its value, as all others but `hidden_size`.
        hidden_size: width of the residual stream.
        heads: of the recurrence.
        head_dim: channels of a head.
        groups: of heads.

    Raises:
        ValueError: names the fields and both numbers.
    """
    inner = expand[1] * hidden_size
    if heads[1] * head_dim[1] != inner:
        raise ValueError(
            f"{heads[0]} {heads[1]} x {head_dim[0]} {head_dim[1]} = {heads[1] * head_dim[1]} must equal "
            f"{expand[0]} {expand[1]} x hidden_size {hidden_size} = {inner}"
        )
    if heads[1] % groups[1]:
        raise ValueError(f"{heads[0]} {heads[1]} is not divisible by {groups[0]} {groups[1]}")
