"""Next-token loss that computes logits only where there is a label."""

from __future__ import annotations

from typing import Any

IGNORED = -100
"""Label of a position where there is nothing to learn."""


def next_token_loss(model: Any, inputs: Any, labels: Any) -> Any:
    """Mean cross-entropy in nats over labelled positions.

    Args:
        model: a transformers causal language model, or one that peft has wrapped.
        inputs: token ids (B, T), padded on the right, where causal attention cannot see the padding.
        labels: ids of the following tokens (B, T); -100 where there is nothing to learn.
    """
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state
    labelled = labels != IGNORED
    logits = causal.get_output_embeddings()(hidden[labelled])
    return torch.nn.functional.cross_entropy(logits.float(), labels[labelled])
