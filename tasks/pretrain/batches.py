"""Batches of token sequences from a memory-mapped shard; which ones depends on seed and step alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError


class Shard:
    """The token ids of one split, cut into sequences of `context_length` (+ 1 for the labels).

    Raises:
        UserError: the split is shorter than one sequence.
    """

    def __init__(self, data: Path, split: str, context_length: int, device: Any) -> None:
        import numpy as np

        kind = json.loads((data / "shards.json").read_text(encoding="utf-8"))["dtype"]
        self.ids = np.memmap(data / f"{split}.bin", dtype=kind, mode="r")
        self.context_length, self.device = context_length, device
        self.sequences = (len(self.ids) - 1) // context_length
        if self.sequences < 1:
            raise UserError(
                f"pretrain.context_length: found {context_length}; the {split} split has only {len(self.ids)} tokens",
                "lower it, or add documents",
            )

    def take(self, indices: Any) -> tuple[Any, Any]:
        """Inputs and labels, each (len(indices), context_length)."""
        import numpy as np
        import torch

        length = self.context_length
        rows = np.stack([self.ids[i * length : (i + 1) * length + 1] for i in indices]).astype(np.int64)
        ids = torch.from_numpy(rows).to(self.device)
        return ids[:, :-1], ids[:, 1:]

    def batch(self, step: int, batch_size: int, seed: int) -> tuple[Any, Any]:
        """The batch of a step: every sequence once per epoch, in an order drawn anew for each."""
        import numpy as np

        indices, orders = [], {}
        for position in range(step * batch_size, (step + 1) * batch_size):
            epoch, offset = divmod(position, self.sequences)
            if epoch not in orders:
                orders[epoch] = np.random.default_rng([seed, epoch]).permutation(self.sequences)
            indices.append(int(orders[epoch][offset]))
        return self.take(indices)
