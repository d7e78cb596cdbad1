"""How much quality a change of parameters is predicted to cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.accounting import active_parameters, embedding_parameters
from tasks.ledger.predict.data import available_chats
from tasks.ledger.predict.subject import Subject
from tasks.scaling import law as scaling

TOKENIZER_WEIGHT, LORA_LOSS = 0.05, 0.1
"""Assumed: a tokenizer trained on e times less text, and LoRA instead of every weight, as shares of finetuning or text lost."""


@dataclass(frozen=True)
class Quality:
    """What the quality of a model hangs on.

    Attributes:
        parameters: active ones, without embeddings.
        text: bytes of training text seen, what is seen again counted for what it is worth (arXiv:2305.16264).
        chats: seen in finetuning, counted the same way, times the tokens of a chat that may be read.
        tokenizer: bytes the tokenizer is trained on.
        full: whether finetuning trains every weight.
    """

    parameters: float
    text: float
    chats: float
    tokenizer: float
    full: bool

    def shares(self, other: Quality) -> dict[str, float]:
        """What `other` has left of each amount, where that is less: words -> share."""
        pairs = {
            "parameters": (other.parameters, self.parameters),
            "training text": (other.text, self.text),
            "finetuning": (other.chats, self.chats),
            "text for the tokenizer": (other.tokenizer, self.tokenizer),
        }
        return {words: new / old for words, (new, old) in pairs.items() if old > 0 and new < old}


def quality(about: Subject) -> Quality:
    """What the quality of this model hangs on."""
    params = about.params
    data, pretrain, finetune = params.data, params.pretrain, params.finetune
    distinct = about.train_tokens * about.bytes_per_token
    seen = pretrain.steps * pretrain.batch_size * pretrain.context_length * about.bytes_per_token
    chats = max(1.0, min(data.max_instructions, available_chats(about)))
    learned = min(data.tokenizer.train.max_bytes, distinct) if data.tokenizer.method == "train" else 0.0
    return Quality(
        parameters=active_parameters(about.config) - embedding_parameters(about.config),
        text=scaling.effective_bytes(seen, distinct),
        chats=scaling.effective_bytes(finetune.steps * finetune.batch_size, chats) * finetune.context_length,
        tokenizer=learned,
        full=finetune.method == "full",
    )


def harm(before: Quality, after: Quality, law: scaling.Law | None) -> float:
    """Predicted loss of quality, at least 0, to rank changes by.

    With a law: bits per byte. What the law doesn't know (finetuning, the tokenizer's text) is counted as if that share of
    the training text were lost. Without a law: the sum of the relative changes, as logarithms.
    """
    shares = before.shares(after)
    other = -math.log(shares.get("finetuning", 1.0)) - TOKENIZER_WEIGHT * math.log(
        shares.get("text for the tokenizer", 1.0)
    )
    other += LORA_LOSS * (before.full and not after.full)
    if law is None or min(before.text, after.text, before.parameters, after.parameters) <= 0:
        return other - sum(math.log(shares.get(name, 1.0)) for name in ("parameters", "training text"))
    fit = (law.E, law.A, law.alpha, law.B, law.beta)
    lost = scaling.loss(fit, after.parameters, after.text) - scaling.loss(fit, before.parameters, before.text)
    return max(0.0, lost) + other * law.beta * law.B / math.pow(before.text, law.beta)
