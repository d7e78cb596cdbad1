"""Next-token loss that computes logits only where there is a label, and the loss that keeps experts equally busy."""

from __future__ import annotations

import sys
from typing import Any

from tasks.models.chat import IGNORED
from tasks.models.soft_prompt import decode_prompted, virtual_tokens
from tasks.training.documents import own_documents


def next_token_loss(model: Any, inputs: Any, labels: Any, documents: Any = None) -> Any:
    """Mean cross-entropy in nats over labelled positions.

    Args:
        model: a transformers causal language model, or one that peft has wrapped.
        inputs: token ids (B, T), padded on the right, where neither causal attention nor a recurrence can see the
            padding.
        labels: ids of the following tokens (B, T); -100 where there is nothing to learn.
        documents: number of the document each token belongs to (B, T), where tokens are to see their own alone.
    """
    made = _decode(model, inputs, documents)
    return cross_entropy(causal_of(model), made.last_hidden_state, labels)


def training_losses(model: Any, inputs: Any, labels: Any, documents: Any = None) -> tuple[Any, Any]:
    """Mean cross-entropy, and what is added to it in training so that experts share the work (arXiv:2101.03961).

    The second is `router_aux_loss_coef` times transformers' own balancing loss, over tokens up to a row's last label;
    None where the model has no experts, or balances them by other means.
    """
    hidden, uneven = decoded(model, inputs, labels, documents)
    return cross_entropy(causal_of(model), hidden, labels), uneven


def decoded(model: Any, inputs: Any, labels: Any, documents: Any = None) -> tuple[Any, Any]:
    """Last hidden states (B, T, d), and the balancing loss of `training_losses`."""
    import torch

    causal = causal_of(model)
    balance = _balancing_loss(causal)
    if balance is None:
        return _decode(model, inputs, documents).last_hidden_state, None
    made = _decode(model, inputs, documents, output_router_logits=True)
    # padding has no label, and nothing behind it has one either
    real = (labels != IGNORED).flip(1).cummax(1).values.flip(1).long()
    virtual = made.router_logits[0].shape[0] // len(real) - real.shape[1]
    real = torch.nn.functional.pad(real, (virtual, 0), value=1)
    config = causal.config
    uneven = balance(made.router_logits, causal.num_experts, config.num_experts_per_tok, real)
    return made.last_hidden_state, config.router_aux_loss_coef * uneven


def causal_of(model: Any) -> Any:
    """The transformers model itself, of one that peft may have wrapped."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _decode(model: Any, inputs: Any, documents: Any = None, **more: Any) -> Any:
    """The decoder's output, without logits."""
    decoder = causal_of(model).get_decoder()
    if virtual_tokens(model):
        if documents is not None:
            raise ValueError("virtual tokens stand before a whole row, and documents of a row can't all follow them")
        return decode_prompted(model, decoder, inputs, **more)
    return decoder(input_ids=inputs, use_cache=False, **own_documents(documents), **more)


def cross_entropy(causal: Any, hidden: Any, labels: Any) -> Any:
    """Mean cross-entropy of the next token, from last hidden states (B, T, d), with logits only where there is a label.

    Where there is something to learn the logits are never all in memory at once.
    """
    import torch

    head = causal.get_output_embeddings()
    labelled = labels != IGNORED
    if labelled.all():  # a view: no copy on the way, none on the way back
        rows, targets = hidden.flatten(0, 1), labels.flatten()
    else:
        rows, targets = hidden[labelled], labels[labelled]
    if len(targets) and type(head) is torch.nn.Linear and head.bias is None:
        from tasks.training.kernels.cross_entropy import chunked_cross_entropy, chunked_loss

        if rows.requires_grad:
            return chunked_cross_entropy(rows, head.weight, targets)
        if not torch.is_grad_enabled():
            return chunked_loss(rows, head.weight, targets)
    return torch.nn.functional.cross_entropy(head(rows).float(), targets)


def _balancing_loss(causal: Any) -> Any:
    """Transformers' function for this architecture, or None."""
    if not getattr(causal.config, "router_aux_loss_coef", 0) or not getattr(causal, "num_experts", 0):
        return None
    return getattr(sys.modules[type(causal).__module__], "load_balancing_loss_func", None)
