"""The roofline (Williams et al. 2009, doi:10.1145/1498765.1498785): each kind of work's FLOPs beside the bytes it must move.

Bytes are the least there are: every weight, activation and cached number crosses the memory once per use, fused
kernels keep the rest in caches. What runs moves more, so a point is a bound and no prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks import accounting
from tasks.accounting import Anatomy, Matrix
from tasks.models import Config
from tasks.planner.candidates import Candidate
from tasks.planner.figures import engine_of

FLOAT = 4
"""Bytes of a number in float32."""

ADAMW_FLOPS, ADAMW_NUMBERS = 14, 7
"""AdamW (arXiv:1711.05101) per weight: operations; numbers read (weight, gradient, two moments) and written (three)."""


@dataclass(frozen=True)
class Work:
    """One kind of work of a phase.

    Attributes:
        kind: what it is, for people.
        flops: of the phase: a training step, a prompt, a token.
        bytes: moved for it at least.
    """

    kind: str
    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / self.bytes

    def seconds(self, peak: float, bandwidth: float) -> float:
        """The least it can take."""
        return max(self.flops / peak, self.bytes / bandwidth)


@dataclass(frozen=True)
class Phase:
    """What a model does at one time.

    Attributes:
        name: `training`, `prefill` or `decode`.
        unit: what its work is counted over.
        works: kinds of work.
    """

    name: str
    unit: str
    works: tuple[Work, ...]

    def seconds(self, peak: float, bandwidth: float) -> float:
        """The least the phase can take, one kind after another."""
        return sum(work.seconds(peak, bandwidth) for work in self.works)


def phases(candidate: Candidate, element: int) -> tuple[Phase, ...]:
    """Training step, prompt and generated token of a candidate.

    Args:
        candidate: the model.
        element: bytes of a number in training's matrix products.
    """
    shape = candidate.shape
    profile, pretrain = shape.params.deploy_profile, shape.params.pretrain
    told = shape.context or profile.prompt_tokens + profile.max_new_tokens
    served = (candidate.figures["model_bytes"] or FLOAT * shape.parameters) / shape.parameters
    prompt = profile.prompt_tokens if shape.context is None else shape.context
    tokens = pretrain.batch_size * pretrain.context_length
    engine = engine_of(shape.params)
    return (
        Phase(
            "training",
            f"a step of {tokens:,} tokens",
            _training(shape.config, tokens, pretrain.context_length, element),
        ),
        Phase("prefill", f"a prompt of {prompt:,} tokens under {engine}", _prefill(shape.config, prompt, served)),
        Phase("decode", f"a token after {told:,} others under {engine}", _decode(shape.config, told, served)),
    )


def _training(config: Config, tokens: int, context: int, element: int) -> tuple[Work, ...]:
    """Forward, and twice that backward; then the optimizer."""
    anatomy = accounting.read(config)
    mixing = sum(part.forward_flops(context) for block in anatomy.blocks for part in block.mixings) / context * tokens
    return (
        Work("blocks' matrices", 3 * _block_flops(anatomy) * tokens, 3 * _moved(_matrices(anatomy), tokens, element)),
        Work(
            "output layer", 3 * anatomy.head_matrix.flops * tokens, 3 * _moved([anatomy.head_matrix], tokens, element)
        ),
        Work("between tokens", 3 * mixing, 3 * _mixed(config, tokens, context, element)),
        Work("AdamW", ADAMW_FLOPS * anatomy.parameters, ADAMW_NUMBERS * FLOAT * anatomy.parameters),
    )


def _prefill(config: Config, prompt: int, weight: float) -> tuple[Work, ...]:
    """A whole prompt at once; logits of its last token alone."""
    anatomy = accounting.read(config)
    mixing = sum(part.forward_flops(prompt) for block in anatomy.blocks for part in block.mixings)
    return (
        Work("blocks' matrices", _block_flops(anatomy) * prompt, _moved(_matrices(anatomy), prompt, FLOAT, weight)),
        Work("output layer", anatomy.head_matrix.flops, _moved([anatomy.head_matrix], 1, FLOAT, weight)),
        Work("between tokens", mixing, _mixed(config, prompt, prompt, 2)),
    )


def _decode(config: Config, told: int, weight: float) -> tuple[Work, ...]:
    """One token: every active weight once, and the whole cache."""
    anatomy = accounting.read(config)
    mixing = sum(part.decode_flops(told) for block in anatomy.blocks for part in block.mixings)
    return (
        Work("blocks' matrices", _block_flops(anatomy), _moved(_matrices(anatomy), 1, FLOAT, weight)),
        Work("output layer", anatomy.head_matrix.flops, _moved([anatomy.head_matrix], 1, FLOAT, weight)),
        Work("between tokens", mixing, float(accounting.cache_bytes(config, told))),
    )


def _matrices(anatomy: Anatomy) -> list[Matrix]:
    return [matrix for block in anatomy.blocks for matrix in block.matrices]


def _block_flops(anatomy: Anatomy) -> float:
    return float(sum(block.matrix_flops for block in anatomy.blocks))


def _moved(matrices: list[Matrix], tokens: int, element: int, weight: float | None = None) -> float:
    """Bytes of weights (of experts, as many as that many tokens can reach) and of what goes in and out of them."""
    total = 0.0
    for matrix in matrices:
        reached = min(matrix.copies, matrix.active * tokens)
        total += reached * matrix.inputs * matrix.outputs * (element if weight is None else weight)
        total += matrix.active * tokens * (matrix.inputs + matrix.outputs) * element
    return total


def _mixed(config: Config, tokens: int, context: int, element: int) -> float:
    """Bytes between tokens: keys, values and states once per sequence, queries and results once per token and block."""
    anatomy = accounting.read(config)
    sequences = tokens / context
    return (
        sequences * accounting.cache_bytes(config, context, element)
        + 2 * tokens * anatomy.layers * anatomy.width * element
    )
