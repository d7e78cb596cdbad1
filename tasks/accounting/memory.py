"""What one training step keeps for its backward pass, from a config: activations, and autocast's copies of the weights.

Counted are the tensors autograd saves (arXiv:2205.05198 counts the same way, for another block): what a linear layer
read, what a norm read and normalised, both factors of a gate, queries, keys and values. A fused attention keeps no
score matrix; one whose keys and values differ in size has no fused kernel. The factors of recurrences are those of
transformers' implementation in plain torch. `torch.autograd.graph.saved_tensors_hooks` is the check in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

from tasks.accounting.anatomy import Anatomy, Block, Matrix, Mixing
from tasks.accounting.attention import Attention
from tasks.accounting.delta import CHUNK, DeltaRule
from tasks.accounting.mamba import Scan
from tasks.accounting.readers import read
from tasks.accounting.recurrent import chunks_of
from tasks.models import Config

FULL = 4
"""Bytes of an element outside the matrix products: autocast leaves residual stream, norms and loss in float32."""


CHECKPOINTING = ("none", "selective", "full")
"""Ways of gradient checkpointing, from most kept to least."""


@dataclass(frozen=True)
class Learning:
    """Where in a model something is computed backward.

    Attributes:
        first: number of the lowest block that anything is; nothing is kept below it.
        blocks: numbers of those whose matrices learn: they keep what they read.
        beside: what learns beside matrices that rest.
    """

    first: int
    blocks: frozenset[int]
    beside: Updates | None = None


@dataclass(frozen=True)
class Updates:
    """LoRA's: an update of low rank beside a frozen matrix keeps what that reads, and that in its own rank.

    Attributes:
        rank: numbers of the latter per token.
        layers: names of the matrices, as in the model.
        dropout: whether every update drops some of what it reads, and so keeps a copy and which.
        gate: whether what a gate lets through is made again instead of being kept, as this project's own kernel does in
            float32 where the matrix behind the gate has an update.
    """

    rank: int
    layers: frozenset[str]
    dropout: bool
    gate: bool


def activation_bytes(
    config: Config,
    tokens: int,
    checkpointing: str = "none",
    element: int = 4,
    labelled: float = 1.0,
    context: int | None = None,
    learning: Learning | None = None,
) -> int:
    """Bytes autograd keeps between the forward and the backward pass of one step, without the weights.

    Args:
        config: a transformers config.
        tokens: of the step, all sequences together.
        checkpointing: `none`, or what is kept of all blocks but one, whose inside is made again: `full` its input
            (arXiv:1604.06174), `selective` also results of matrix products and attention (arXiv:2205.05198).
        element: bytes of an element in the matrix products: 4, or 2 under bfloat16 autocast.
        labelled: share of the tokens that have a label, and so logits.
        context: tokens of a sequence; None: all are one.
        learning: which blocks learn; None: all.
    """
    anatomy = read(config)
    first = learning.first if learning else 0
    passed = anatomy.blocks[first:]
    beside = learning.beside if learning else None
    if beside and checkpointing == "selective":
        beside = replace(beside, gate=False)
    blocks = [
        block_bytes_per_token(
            block, anatomy.width, element, context or tokens, learning is None or number in learning.blocks, beside
        )
        for number, block in enumerate(passed, first)
    ]
    inside = sum(blocks)
    if checkpointing != "none":
        inside = FULL * anatomy.width * len(blocks) + max(blocks, default=0.0)
    if checkpointing == "selective":
        inside += sum(_results(block, element) for block in passed)
    return round(tokens * (inside + _ends(anatomy, element, labelled, beside is None)))


def forward_bytes(config: Config, tokens: int, element: int = 4, context: int | None = None) -> int:
    """Bytes of a forward pass alone, without weights and logits: the stream, and the inside of one block at most."""
    anatomy = read(config)
    blocks = [block_bytes_per_token(block, anatomy.width, element, context or tokens) for block in anatomy.blocks]
    return round(tokens * (FULL * anatomy.width + max(blocks, default=0.0)))


def _results(block: Block, element: int) -> float:
    """Results of a block's matrix products and fused attention, per token."""
    products: float = sum(element * matrix.outputs * matrix.active for matrix in block.matrices)
    attention = [part for part in block.mixings if isinstance(part, Attention)]
    return products + sum(part.heads * (element * part.value_size + FULL) for part in attention)


def weight_copy_bytes(config: Config, element: int = 4) -> int:
    """Bytes of the copies autocast makes of the blocks' matrices, kept until the backward pass is over."""
    if element == FULL:
        return 0
    blocks = read(config).blocks
    return element * sum(m.inputs * m.outputs for block in blocks for m in block.matrices if m.copies == 1)


def head_gradient_bytes(config: Config) -> int:
    """Bytes of the output layer's gradient, which its forward pass makes and the backward pass hands on."""
    head = read(config).head_matrix
    return FULL * head.inputs * head.outputs


def block_bytes_per_token(
    block: Block, width: int, element: int, context: int, learns: bool = True, beside: Updates | None = None
) -> float:
    """What a block keeps of every token of a sequence of `context`.

    Where it doesn't learn itself, and the gradient only passes: without what matrices read, but for the result of
    attention and what updates beside them read, and without what norms made.
    """
    recurrent = [part for part in block.mixings if isinstance(part, Scan | DeltaRule)]
    behind = any(matrix.order > 2 for matrix in block.matrices)
    # a recurrence's own norms and decays are in its factors
    kept: float = (2 if learns else 1) * FULL * ((width * (2 if behind else 1)) if recurrent else block.vectors)
    attended = {part.order + 1 for part in block.mixings}
    ordered = sorted(block.matrices, key=attrgetter("order"))
    for order, same in groupby(ordered, attrgetter("order")):
        group = [matrix for matrix in same if ".experts." not in matrix.name]
        kept += _gated(group, element)
        updated = [matrix for matrix in group if beside and f"{block.name}.{matrix.name}" in beside.layers]
        reading = group if learns or order in attended else updated
        kept += _read(reading, width, element)
        kept += _beside(updated, beside, element) if beside else 0.0
    kept += sum(_routed(matrix, width) for matrix in block.matrices)
    return kept + sum(_mixed(block, part, element, context) for part in block.mixings)


def _read(group: list[Matrix], width: int, element: int) -> float:
    """What matrices of one order keep of what they read.

    Autocast casts the float32 stream anew for every matrix that reads it; in float32 all keep the same tensor.
    """
    stream = [matrix for matrix in group if matrix.inputs == width]
    kept: float = sum(element * matrix.inputs * matrix.active for matrix in group if matrix.inputs != width)
    return kept + element * width * (min(1, len(stream)) if element == FULL else len(stream))


def _beside(updated: list[Matrix], updates: Updates, element: int) -> float:
    """What updates keep beside what is read, less what a gate lets through and what it does, which are made again."""
    kept: float = element * updates.rank * len(updated)
    for matrix in updated:
        if updates.dropout:
            kept += (element + 1) * matrix.inputs
        elif updates.gate and element == FULL and matrix.name.endswith("down_proj"):
            kept -= 2 * FULL * matrix.inputs
    return kept


def _gated(group: list[Matrix], element: int) -> float:
    """Gate, its activation, and what it multiplies: three widths of a gated feed-forward layer."""
    return sum(
        element * (2 if matrix.name.endswith("gate_proj") else 1) * matrix.outputs
        for matrix in group
        if matrix.name.endswith(("gate_proj", "up_proj"))
    )


def _routed(matrix: Matrix, width: int) -> float:
    """Experts multiply in float32 whatever autocast says: input, gate and up, activation, product, output."""
    if not matrix.name.endswith("experts.gate_up_proj"):
        return 0.0
    return FULL * matrix.active * (2 * width + 2 * matrix.outputs)


def _mixed(block: Block, part: Mixing, element: int, context: int) -> float:
    """What is kept between tokens: queries, keys, values and sums of attention; factors and states of a recurrence."""
    if isinstance(part, Scan):
        return _scanned(part, element, context)
    if isinstance(part, DeltaRule):
        return _solved(part, element, context)
    last = max((matrix.order for matrix in block.matrices if matrix.order < part.order), default=-1)
    kept = sum(element * matrix.outputs * matrix.active for matrix in block.matrices if matrix.order == last)
    if not isinstance(part, Attention):
        return kept
    unfused = part.key_size != part.value_size
    return kept + FULL * part.heads * ((context + part.key_size) if unfused else 1)


def _scanned(part: Scan, element: int, context: int) -> float:
    """Mamba-2: projections and convolution; inner tensors in float32; decays and scores of a chunk; states."""
    inner, channels = part.heads * part.head_dim, part.convolution.channels
    outside = element * 2 * channels + (element * (inner + channels) if element == FULL else FULL * 2 * inner)
    filled = part.chunk * chunks_of(context, part.chunk) / context
    chunked = filled * part.heads * (3 * part.chunk + 3 * part.state + 8)
    states = 2 * (chunks_of(context, part.chunk) + 1) * inner * part.state / context
    return outside + FULL * ((5 + 2 * filled) * inner + chunked + states)


def _solved(part: DeltaRule, element: int, context: int) -> float:
    """Gated delta rule: convolution; norms, decays and the solved systems in float32; products in the matrices' type."""
    filled = CHUNK * chunks_of(context, CHUNK) / context
    keys, values = filled * part.heads * part.key_dim, filled * part.heads * part.value_dim
    chunked = filled * part.heads * CHUNK
    if element == FULL:
        return FULL * (2 * part.convolution.channels + 9 * values + 8 * keys + 8 * chunked + 8 * part.heads)
    small = 2 * part.convolution.channels + 4 * values + 4 * keys + 4 * chunked
    return element * small + FULL * (7 * values + 5 * keys + 3 * chunked + 8 * part.heads)


def _ends(anatomy: Anatomy, element: int, labelled: float, learns: bool) -> float:
    """Token ids, the last norm, and of labelled tokens the gradient of the head's input; logits are gone by then."""
    head = element * anatomy.width + (8 if labelled < 1 else 0)
    return 8 + (2 if learns else 1) * FULL * anatomy.width + FULL + labelled * head
