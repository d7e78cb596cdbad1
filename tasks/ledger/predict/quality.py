"""What evaluating a model costs: scoring the held-out text, and writing samples."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting import forward_flops_per_token
from tasks.evaluate.samples import CHAT_PROMPTS, PROMPT_TOKENS, TEXT_PROMPTS
from tasks.ledger.predict import constants
from tasks.ledger.predict.cost import Cost, compute, forward_elements
from tasks.ledger.predict.subject import Subject


@dataclass(frozen=True)
class Kept:
    """A model as it lies in a folder.

    Attributes:
        bytes: of its weights.
        dtype: of its products.
        slowdown: of its forward pass, beside plain weights of that dtype.
        layer_seconds: of calling a layer.
    """

    bytes: float
    dtype: str
    slowdown: float = 1.0
    layer_seconds: float = constants.LAYER_SECONDS


def scoring_flops(about: Subject, tokens: float) -> float:
    """FLOPs of one forward pass over `tokens` tokens of held-out text."""
    return tokens * forward_flops_per_token(about.config, about.params.evaluate.context_length)


def scoring(about: Subject, model: Kept, tokens: float) -> Cost:
    """Score `tokens` tokens of held-out text."""
    evaluate = about.params.evaluate
    batches = tokens / (evaluate.context_length * evaluate.batch_size)
    elements = tokens * forward_elements(about.anatomy)
    work = compute(about.machine, model.dtype, scoring_flops(about, tokens), elements, batches * about.anatomy.layers)
    return Cost(serial=work.serial, device=work.device * model.slowdown)


def scoring_memory(about: Subject) -> float:
    """Bytes of the logits of one batch: as computed, in float32, and their logarithms."""
    evaluate = about.params.evaluate
    tokens = min(evaluate.batch_size * evaluate.context_length, about.heldout_tokens)
    return 3.0 * tokens * about.anatomy.vocab * 4


def decode_seconds(about: Subject, model: Kept) -> float:
    """Seconds of one generated token under transformers: read the weights once, call every layer once."""
    efficiency = constants.DECODE_EFFICIENCY[model.dtype]
    read = model.bytes / (about.machine.bandwidth_bytes_per_second * efficiency)
    return read * model.slowdown + about.anatomy.layers * model.layer_seconds


def generation(about: Subject, model: Kept, prompt: float, tokens: float) -> Cost:
    """Read a prompt and generate `tokens` tokens under transformers."""
    flops = prompt * forward_flops_per_token(about.config, int(prompt))
    prefill = compute(about.machine, model.dtype, flops, prompt * forward_elements(about.anatomy), about.anatomy.layers)
    return prefill + Cost(device=decode_seconds(about, model) * tokens)


def samples(about: Subject, model: Kept) -> Cost:
    """The continuations that every stage writes."""
    count = TEXT_PROMPTS + CHAT_PROMPTS
    return generation(about, model, PROMPT_TOKENS, about.params.evaluate.sample_tokens) * count
