"""Exact arithmetic of a model before it exists: parameters, FLOPs, bytes, from its transformers config. No torch.

`read` turns a config into an `Anatomy` (matrices, and what happens between tokens); `costs` sums it up. A new
architecture is a reader in `readers.py`, composed of the parts that are here already wherever it can be.
"""

from __future__ import annotations

from tasks.accounting.anatomy import Anatomy, Block, Matrix, Mixing
from tasks.accounting.costs import (
    active_parameters,
    cache_bytes,
    decode_flops_per_token,
    embedding_parameters,
    forward_flops_per_token,
    kv_cache_bytes_per_token,
    parameters,
    training_flops_per_token,
)
from tasks.accounting.readers import READERS, read
from tasks.accounting.tensors import parameter_shapes

__all__ = [
    "READERS",
    "Anatomy",
    "Block",
    "Matrix",
    "Mixing",
    "active_parameters",
    "cache_bytes",
    "decode_flops_per_token",
    "embedding_parameters",
    "forward_flops_per_token",
    "kv_cache_bytes_per_token",
    "parameter_shapes",
    "parameters",
    "read",
    "training_flops_per_token",
]
