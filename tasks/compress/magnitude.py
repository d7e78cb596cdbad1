"""Unstructured magnitude pruning: the smallest weights of every layer become zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tasks.core.errors import UserError
from tasks.core.schema import Technique

if TYPE_CHECKING:
    from tasks.compress.workbench import Workbench


class Magnitude(Technique):
    """Zero the smallest weights of every linear layer of the blocks (arXiv:1506.02626)."""

    sparsity: float = Field(default=0.5, gt=0, lt=1)
    """Share of each layer's weights that become zero."""

    def apply(self, bench: Workbench) -> str:
        """Prune each linear layer on its own, the output layer excepted.

        Raises:
            UserError: the model has no linear layer.
        """
        from torch import nn
        from torch.nn.utils import prune
        from transformers.pytorch_utils import Conv1D

        model = bench.load()
        output = model.get_output_embeddings()
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | Conv1D) and layer is not output]
        if not layers:
            raise UserError(f"compress.magnitude: {bench.source} has no linear layers", "choose another technique")
        for layer in layers:
            prune.l1_unstructured(layer, "weight", amount=self.sparsity)
            prune.remove(layer, "weight")
        bench.save(model)
        return (
            f"a share of {self.sparsity:g} of each linear layer of the blocks is zero; "
            f"the bytes do not move: a zero is stored like any other weight{bench.left_out()}"
        )
