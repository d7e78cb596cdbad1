"""Every weight is trained: the yardstick of the adapters."""

from __future__ import annotations

from typing import Any

from tasks.core.schema import Technique


class Full(Technique):
    """Train every weight (the baseline every adapter is compared with)."""

    def apply(self, model: Any) -> Any:
        """Return `model` with every parameter trainable."""
        model.requires_grad_(True)
        return model
