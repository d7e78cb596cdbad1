"""What the stage compress will cost, and how large the compressed model will be."""

from __future__ import annotations

from tasks import accounting
from tasks.accounting.lora import linear_layers
from tasks.core.measure import Metrics, modelled
from tasks.evaluate.loyalty import MAX_POSITIONS
from tasks.ledger.predict import constants
from tasks.ledger.predict.cost import disk, traffic
from tasks.ledger.predict.quality import (
    Kept,
    running,
    samples,
    scoring,
    scoring_flops,
    scoring_memory,
    tasks,
    tasks_memory,
)
from tasks.ledger.predict.subject import Subject

MISTYPED = 1.15
"""Tokens of the mistyped text beside the text's."""

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def original(about: Subject) -> Kept:
    """The fine-tuned model as it is kept."""
    return Kept(about.weight_bytes, about.stored_dtype)


def compressed(about: Subject) -> Kept:
    """The model as the chosen technique keeps it; one that stores weights as they were leaves the bytes alone."""
    params, linear = about.params.compress, about.anatomy.linear
    plain = accounting.parameters(about.config) - linear
    layers = linear_layers(about.config)[:-1]
    if params.method == "int8":
        rows = sum(layer.outputs for layer in layers)
        size = linear + 4 * rows + 2 * plain
        return _quantized(size, "int8")
    if params.method == "nf4":
        nf4 = params.nf4
        blocks = linear / 64
        scales = blocks * (1 + 4 / 256) if nf4.bnb_4bit_use_double_quant else 4 * blocks
        size = int(linear / 2 + scales + constants.NF4_STATE_BYTES * len(layers))
        dtype = nf4.bnb_4bit_compute_dtype
        return _quantized(size + BYTES[dtype] * plain, "nf4")
    return original(about)


def _quantized(size: int, method: str) -> Kept:
    called = constants.QUANTIZED_LAYER_SECONDS[method]
    return Kept(size, "float32", constants.QUANTIZED_SLOWDOWN[method], called, called)


def compress(about: Subject) -> Metrics:
    """Quantize or prune; then score the original, the result, and the result on mistyped text, and compare the two."""
    before, after = original(about), compressed(about)
    size = accounting.parameters(about.config)
    alike = min(about.heldout_tokens, MAX_POSITIONS)
    tokens = {"original": about.heldout_tokens + alike, "compressed": about.heldout_tokens * (1 + MISTYPED) + alike}
    comparing = traffic(about.machine, alike * constants.LOYALTY_TRAFFIC * about.anatomy.vocab)
    first, second = running(about, before), running(about, after)
    evaluation = (
        scoring(about, first, tokens["original"])
        + scoring(about, second, tokens["compressed"])
        + samples(about, second)
        + tasks(about, second)
        + comparing
    )
    files = disk(about.machine, 3 * before.bytes + 2 * after.bytes)
    note = f"{evaluation.wall:.3g} s evaluation of both models + {files.wall:.3g} s files"
    logits = min(4 * alike * about.anatomy.vocab, constants.LOYALTY_BYTES) * constants.LOYALTY_COPIES
    memory = first.bytes + second.bytes + max(scoring_memory(about), logits) + tasks_memory(about)
    how = f"bytes of {about.params.compress.method} weights from the layers' shapes"
    return {
        **(evaluation + files).metrics("compress", about.machine, memory, note),
        "flops": modelled(scoring_flops(about, sum(tokens.values())), "forward passes of the evaluation"),
        "parameters": modelled(size, "exact, from the config"),
        "model_bytes": modelled(after.bytes, how),
        "compression_ratio": modelled(before.bytes / after.bytes, f"{before.bytes} / {after.bytes} bytes"),
        "delivery_bytes": modelled(
            after.bytes + constants.TOKENIZER_BYTES * about.vocab, "weights, and a tokenizer of that vocabulary"
        ),
    }
