"""The sums: a config in, parameters, FLOPs or bytes out."""

from __future__ import annotations

from tasks.accounting.anatomy import backward_flops
from tasks.accounting.readers import read
from tasks.models import Config


def parameters(config: Config) -> int:
    """Number of parameters, tied embeddings counted once."""
    return read(config).parameters


def active_parameters(config: Config) -> int:
    """Parameters one token passes: of the experts, only those it is sent to."""
    anatomy = read(config)
    spared = sum(m.parameters - m.active_parameters for block in anatomy.blocks for m in block.matrices)
    return anatomy.parameters - spared


def embedding_parameters(config: Config) -> int:
    """Parameters of the input embedding and the output layer, tied ones once."""
    return read(config).embedding


def forward_flops_per_token(config: Config, context: int) -> float:
    """FLOPs of one token's forward pass in a sequence of `context` tokens: prefill or training.

    Attention counts every key of the sequence, or of the window: kernels that skip the future need half of it.
    """
    anatomy = read(config)
    matrices = sum(block.matrix_flops for block in anatomy.blocks) + anatomy.head_matrix.flops
    mixing = sum(part.forward_flops(context) for block in anatomy.blocks for part in block.mixings)
    return matrices + mixing / context


def training_flops_per_token(config: Config, context: int) -> float:
    """FLOPs of one token's forward and backward pass with every weight trained."""
    anatomy = read(config)
    matrices = sum(block.matrix_flops for block in anatomy.blocks) + anatomy.head_matrix.flops
    parts = [part for block in anatomy.blocks for part in block.mixings]
    mixing = sum(part.forward_flops(context) + backward_flops(part, context, trained=True) for part in parts)
    return 3 * matrices + mixing / context


def decode_flops_per_token(config: Config, position: int) -> float:
    """FLOPs of generating one token when `position` tokens have been read."""
    anatomy = read(config)
    matrices = sum(block.matrix_flops for block in anatomy.blocks) + anatomy.head_matrix.flops
    return float(matrices + sum(part.decode_flops(position) for block in anatomy.blocks for part in block.mixings))


def cache_bytes(config: Config, context: int, bytes_per_element: int = 2) -> int:
    """Bytes of keys, values and states of one sequence of `context` tokens."""
    parts = [part for block in read(config).blocks for part in block.mixings]
    return sum(part.cache_bytes(context, bytes_per_element) for part in parts)


def kv_cache_bytes_per_token(config: Config, bytes_per_element: int = 2) -> int:
    """Bytes the cache grows by with every token, until windows are full."""
    return cache_bytes(config, 2, bytes_per_element) - cache_bytes(config, 1, bytes_per_element)
