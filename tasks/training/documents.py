"""Rows that hold several documents, none of which sees another."""

from __future__ import annotations

from typing import Any

LENGTHS = "document_lengths"
"""Attribute of a mask that says what it shows, so that attention need not compute what it hides."""


def own_documents(documents: Any) -> dict[str, Any]:
    """Arguments of a forward pass in which a token sees its own document (B, T) alone; none where `documents` is None.

    Positions begin anew with every document (B, T), and a mask (B, 1, T, T) shows a token its own alone.
    """
    return {} if documents is None else _own_documents(documents)


def _own_documents(documents: Any) -> dict[str, Any]:
    import torch

    length = documents.shape[1]
    order = torch.arange(length, device=documents.device).expand_as(documents)
    starts = torch.where(_fresh(documents), order, 0).cummax(1).values
    same = documents[:, :, None] == documents[:, None, :]
    mask = (same & torch.ones(length, length, dtype=torch.bool, device=documents.device).tril())[:, None]
    # a document whose number comes twice in a row would see its other part
    if documents.device.type == "cpu" and bool((documents.diff(dim=1) >= 0).all()):
        setattr(mask, LENGTHS, lengths_of(documents))
    return {"position_ids": order - starts, "attention_mask": mask}


def lengths_of(documents: Any) -> list[list[int]]:
    """Tokens of every document of every row of (B, T)."""
    import torch

    fresh = torch.nn.functional.pad(_fresh(documents), (0, 1), value=True)
    return [row.nonzero()[:, 0].diff().tolist() for row in fresh]


def shown(mask: Any) -> list[list[int]] | None:
    """What `lengths_of` says of the documents that a mask shows to themselves alone; None where that isn't known."""
    found: list[list[int]] | None = getattr(mask, LENGTHS, None)
    return found


def _fresh(documents: Any) -> Any:
    """Where a document begins (B, T)."""
    import torch

    fresh = torch.ones_like(documents, dtype=torch.bool)
    fresh[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return fresh
