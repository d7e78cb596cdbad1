"""Next-token loss that computes logits only where there is a label, and the loss that keeps experts equally busy."""

from __future__ import annotations

import sys
from typing import Any

from tasks.models.chat import IGNORED


def next_token_loss(model: Any, inputs: Any, labels: Any) -> Any:
    """Mean cross-entropy in nats over labelled positions.

    Args:
        model: a transformers causal language model, or one that peft has wrapped.
        inputs: token ids (B, T), padded on the right, where neither causal attention nor a recurrence can see the
            padding.
        labels: ids of the following tokens (B, T); -100 where there is nothing to learn.
    """
    causal = _causal(model)
    return _cross_entropy(causal, causal.get_decoder()(input_ids=inputs, use_cache=False), labels)


def training_losses(model: Any, inputs: Any, labels: Any) -> tuple[Any, Any]:
    """Mean cross-entropy, and what is added to it in training so that experts share the work (arXiv:2101.03961).

    The second is `router_aux_loss_coef` times transformers' own balancing loss, over tokens up to a row's last label;
    None where the model has no experts, or balances them by other means.
    """
    causal = _causal(model)
    balance = _balancing_loss(causal)
    if balance is None:
        return next_token_loss(model, inputs, labels), None
    made = causal.get_decoder()(input_ids=inputs, use_cache=False, output_router_logits=True)
    # padding has no label, and nothing behind it has one either
    real = (labels != IGNORED).flip(1).cummax(1).values.flip(1).long()
    config = causal.config
    uneven = balance(made.router_logits, causal.num_experts, config.num_experts_per_tok, real)
    return _cross_entropy(causal, made, labels), config.router_aux_loss_coef * uneven


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _cross_entropy(causal: Any, made: Any, labels: Any) -> Any:
    import torch

    labelled = labels != IGNORED
    logits = causal.get_output_embeddings()(made.last_hidden_state[labelled])
    return torch.nn.functional.cross_entropy(logits.float(), labels[labelled])


def _balancing_loss(causal: Any) -> Any:
    """Transformers' function for this architecture, or None."""
    if not getattr(causal.config, "router_aux_loss_coef", 0) or not getattr(causal, "num_experts", 0):
        return None
    return getattr(sys.modules[type(causal).__module__], "load_balancing_loss_func", None)
