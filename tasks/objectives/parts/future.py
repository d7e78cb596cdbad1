"""The module that looks one token further than the one before it. Imports torch: import it late."""

from __future__ import annotations

from typing import Any

import torch

WIDTH = 2
"""Width of a module's gated layer, in widths of the model."""

SEED = 0
"""Of new modules: the same for every worker and attempt. What differs between seeds is the model and the data."""


class Future(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """One depth of DeepSeek-V3's multi-token prediction (arXiv:2412.19437, section 2.2), without attention of its own.

    What the depth before knows at a position and the embedding of the next token it may see are normalised, joined,
    projected, and pass one gated layer (arXiv:2002.05202). Upstream has a whole block of the model there; this one has
    no words for a family, so recurrent and mixed decoders get the same.

    Args:
        width: of hidden states.
        embedded: width of embeddings.
    """

    def __init__(self, width: int, embedded: int) -> None:
        super().__init__()
        inner = WIDTH * width
        self.hidden_norm = torch.nn.RMSNorm(width)
        self.embedding_norm = torch.nn.RMSNorm(embedded)
        self.join = torch.nn.Linear(width + embedded, width, bias=False)
        self.inner_norm = torch.nn.RMSNorm(width)
        self.gate = torch.nn.Linear(width, inner, bias=False)
        self.up = torch.nn.Linear(width, inner, bias=False)
        self.down = torch.nn.Linear(inner, width, bias=False)
        self.norm = torch.nn.RMSNorm(width)

    def forward(self, hidden: Any, embedded: Any) -> Any:
        """Hidden states (B, S, d) of the depth before and embeddings (B, S, e) of the token after: states (B, S, d)."""
        joined = self.join(torch.cat([self.hidden_norm(hidden), self.embedding_norm(embedded)], -1))
        inner = self.inner_norm(joined)
        return joined + self.down(torch.nn.functional.silu(self.gate(inner)) * self.up(inner))


def futures(causal: Any, depths: int) -> torch.nn.ModuleList:
    """`depths` new modules for a transformers causal language model, on its device and in its dtype."""
    config, weight = causal.config.get_text_config(), causal.get_input_embeddings().weight
    spread = getattr(config, "initializer_range", None) or 0.02
    made = torch.nn.ModuleList(
        Future(causal.get_output_embeddings().weight.shape[1], weight.shape[1]) for _ in range(depths)
    )
    draw = torch.Generator().manual_seed(SEED)
    for parameter in made.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=spread, generator=draw)
    return made.to(device=weight.device, dtype=weight.dtype)
