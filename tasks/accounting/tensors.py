"""The tensors a model is made of, as far as an optimizer's state depends on their shapes."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.accounting.anatomy import Block
from tasks.accounting.readers import read
from tasks.models import Config

Shape = tuple[int, ...]


def parameter_shapes(config: Config) -> list[Shape]:
    """Shapes of the parameters, in the model's order: the input embedding first, the output layer last.

    All numbers are there, tied ones once; but the vectors of a block count as one, whatever their number and form.
    """
    anatomy = read(config)
    found: list[Shape] = [(anatomy.vocab, anatomy.width)]
    for block in anatomy.blocks:
        found += block_shapes(block)
    if anatomy.vectors:
        found.append((anatomy.vectors,))
    if not anatomy.tied:
        found.append((anatomy.vocab, anatomy.width))
    if anatomy.head_bias:
        found.append((anatomy.vocab,))
    return found


def block_shapes(block: Block) -> Iterator[Shape]:
    """Shapes of a block's parameters, its vectors as one."""
    for matrix in block.matrices:
        shape = (matrix.outputs, matrix.inputs)
        stacked = matrix.copies > 1 and not matrix.module
        yield from [(matrix.copies, *shape)] if stacked else [shape] * matrix.copies
        if matrix.bias:
            yield from [(matrix.outputs,)] * matrix.copies
    if block.vectors:
        yield (block.vectors,)
