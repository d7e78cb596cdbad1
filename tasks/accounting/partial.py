"""Exact arithmetic of training some of a model's own weights: which tensors, how many FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

from tasks.accounting.anatomy import Anatomy, backward_flops
from tasks.accounting.costs import forward_flops_per_token
from tasks.accounting.lora import Layer, frozen_flops_per_token
from tasks.accounting.memory import Learning
from tasks.accounting.readers import read
from tasks.accounting.tensors import Shape, block_shapes
from tasks.models import Config

NORM_BEHIND = frozenset({"olmo2", "olmo3"})
"""Model types whose blocks begin with a matrix; all others' begin with a norm."""


@dataclass(frozen=True)
class Part:
    """What of a model is trained at a time.

    Attributes:
        blocks: numbers of the blocks that are trained whole.
        embedding: whether the input embedding is; tied, it is the output layer too.
        norm: whether the vectors behind the blocks are: the last norm.
        head: whether the output layer is.
    """

    blocks: frozenset[int] = frozenset()
    embedding: bool = False
    norm: bool = False
    head: bool = False

    @classmethod
    def joined(cls, parts: Iterable[Part]) -> Part:
        """Everything that is in any of them."""
        every = list(parts)
        ends = {name: any(getattr(part, name) for part in every) for name in ("embedding", "norm", "head")}
        return cls(frozenset().union(*(part.blocks for part in every)), **ends)

    def tied(self, anatomy: Anatomy) -> Part:
        """The same of a model whose output layer may be its embedding."""
        both = anatomy.tied and (self.embedding or self.head)
        return Part(self.blocks, self.embedding or both, self.norm, self.head or both)

    def kind(self, anatomy: Anatomy) -> str:
        """A name that parts share whose training takes the same FLOPs."""
        matrices = [(block.matrices, block.mixings) for block in anatomy.blocks]
        if not self.tied(anatomy).embedding:  # then it matters how far down the gradient has to go
            return f"blocks {' '.join(map(str, sorted(self.blocks)))} {self.norm} {self.head}"
        kinds = sorted(matrices.index(matrices[number]) for number in self.blocks)
        return f"embedding and blocks like {' '.join(map(str, kinds))}"


def part_shapes(config: Config, part: Part) -> list[Shape]:
    """Shapes of the tensors of a part, in the model's order; vectors of a block count as one, as in `parameter_shapes`."""
    anatomy = read(config)
    part, matrix = part.tied(anatomy), (anatomy.vocab, anatomy.width)
    found: list[Shape] = [matrix] if part.embedding else []
    for number in sorted(part.blocks):
        found += block_shapes(anatomy.blocks[number])
    if part.norm and anatomy.vectors:
        found.append((anatomy.vectors,))
    if part.head and not anatomy.tied:
        found.append(matrix)
    if part.head and anatomy.head_bias:
        found.append((anatomy.vocab,))
    return found


def part_parameters(config: Config, part: Part) -> int:
    """How many numbers a part holds."""
    return sum(map(prod, part_shapes(config, part)))


def part_learning(config: Config, part: Part) -> Learning:
    """Which blocks keep activations for the gradient of a part."""
    anatomy = read(config)
    lowest = 0 if part.tied(anatomy).embedding else min(part.blocks, default=anatomy.layers)
    return Learning(lowest, part.blocks)


def frozen_forward_flops(config: Config, context: int, labelled: float) -> float:
    """FLOPs of one token's forward pass, with logits for a share `labelled` of the tokens."""
    return forward_flops_per_token(config, context) - read(config).head_matrix.flops * (1 - labelled)


def part_flops_per_token(config: Config, context: int, labelled: float, part: Part) -> float:
    """FLOPs of one token's forward and backward pass with a part trained.

    Weights outside of it have no gradient; nothing flows below the first tensor of it.
    """
    anatomy = read(config)
    part, head = part.tied(anatomy), anatomy.head_matrix.flops * labelled
    weights = sum(anatomy.blocks[number].matrix_flops for number in part.blocks) + (head if part.head else 0.0)
    flops = frozen_forward_flops(config, context, labelled) + weights
    if not (part.embedding or part.blocks):
        return flops + (head if part.norm else 0.0)
    first = 0 if part.embedding else min(part.blocks)
    if not part.embedding and config.get("model_type") in NORM_BEHIND:
        begin = [Layer(m.name, m.inputs, m.outputs, (first, m.order), m.way) for m in anatomy.blocks[first].matrices]
        return (
            frozen_flops_per_token(config, context, begin, _nothing) + weights - 2 * (anatomy.head_matrix.flops - head)
        )
    for number, block in enumerate(anatomy.blocks[first:], first):
        trained = number in part.blocks
        mixing = sum(backward_flops(mixed, context, trained) for mixed in block.mixings)
        flops += block.matrix_flops + mixing / context
    return flops + head


def bias_layers(config: Config) -> list[Layer]:
    """The linear modules of the blocks that add a vector."""
    return [
        Layer(f"{block.name}.{m.name}", m.inputs, m.outputs, (number, m.order), m.way)
        for number, block in enumerate(read(config).blocks)
        for m in block.matrices
        if m.module and m.bias
    ]


def apart_flops_per_token(
    config: Config, context: int, labelled: float, layers: list[Layer], own: Callable[[Layer], float]
) -> float:
    """FLOPs of one token's forward and backward pass with something in each of some layers of the blocks trained.

    Args:
        config: of the model.
        context: tokens of a sequence.
        labelled: share of the tokens that have a label, and so logits.
        layers: some.
        own: FLOPs of the gradient of what is trained in a layer.
    """
    spared = 2 * read(config).head_matrix.flops * (1 - labelled)
    return frozen_flops_per_token(config, context, layers, lambda layer, _: own(layer)) - spared


def _nothing(_: Layer, __: bool) -> float:
    return 0.0
