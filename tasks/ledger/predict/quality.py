"""What evaluating a model costs: scoring the held-out text, answering tasks, and writing samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tasks import accounting
from tasks.evaluate import CODE, LOCAL
from tasks.evaluate.samples import CHAT_PROMPTS, PROMPT_TOKENS, TEXT_PROMPTS
from tasks.ledger.predict import constants
from tasks.ledger.predict.cost import Cost, work
from tasks.ledger.predict.subject import Subject


@dataclass(frozen=True)
class Kept:
    """A model as it lies in a folder.

    Attributes:
        bytes: of its weights.
        dtype: of its products.
        slowdown: of its forward pass, beside plain weights of that dtype.
        layer_seconds: of calling a layer for a batch.
        decode_layer_seconds: of calling it for one token.
    """

    bytes: float
    dtype: str
    slowdown: float = 1.0
    layer_seconds: float = constants.FORWARD["float32"].layer_seconds
    decode_layer_seconds: float = constants.DECODE_LAYER_SECONDS


def running(about: Subject, model: Kept) -> Kept:
    """`model` as it is evaluated: in float32 where no hardware multiplies its type (`tasks.models.device.computable`)."""
    if model.dtype == "float32" or about.machine.native_bf16 or about.machine.device != "cpu":
        return model
    return replace(model, bytes=2 * model.bytes, dtype="float32")


def scoring_flops(about: Subject, tokens: float) -> float:
    """FLOPs of one forward pass over `tokens` tokens of held-out text."""
    return tokens * accounting.forward_flops_per_token(about.config, about.params.evaluate.context_length)


def scoring(about: Subject, model: Kept, tokens: float) -> Cost:
    """Score `tokens` tokens of held-out text."""
    evaluate = about.params.evaluate
    sequences = tokens / evaluate.context_length
    rate = replace(constants.FORWARD[model.dtype], layer_seconds=0.0)
    one = work(about.machine, rate, model.dtype, about.anatomy, evaluate.batch_size, evaluate.context_length)
    batches = sequences / evaluate.batch_size
    called = Cost(device=batches * about.anatomy.layers * model.layer_seconds)
    return Cost(serial=one.serial, device=one.device * model.slowdown) * batches + called


def scoring_memory(about: Subject) -> float:
    """Bytes of the logits of one batch: as computed, in float32, and their logarithms."""
    evaluate = about.params.evaluate
    tokens = min(evaluate.batch_size * evaluate.context_length, about.heldout_tokens)
    return constants.LOGIT_COPIES * tokens * about.anatomy.vocab * 4


def decode_seconds(about: Subject, model: Kept) -> float:
    """Seconds of one generated token under transformers: read the weights it passes once, call every layer once."""
    efficiency = constants.DECODE_EFFICIENCY[model.dtype]
    passed = accounting.active_parameters(about.config) / accounting.parameters(about.config)
    read = model.bytes * passed / (about.machine.bandwidth_bytes_per_second * efficiency)
    calls = about.anatomy.layers * model.decode_layer_seconds + constants.DECODE_TOKEN_SECONDS
    return read * model.slowdown + calls


def generation(about: Subject, model: Kept, prompt: float, tokens: float) -> Cost:
    """Read a prompt and generate `tokens` tokens under transformers."""
    prefill = work(about.machine, constants.FORWARD[model.dtype], model.dtype, about.anatomy, 1, max(1, int(prompt)))
    return prefill + Cost(device=decode_seconds(about, model) * tokens)


def samples(about: Subject, model: Kept) -> Cost:
    """The continuations that every stage writes."""
    count = TEXT_PROMPTS + CHAT_PROMPTS
    return generation(about, model, PROMPT_TOKENS, about.params.evaluate.sample_tokens) * count


def tasks(about: Subject, model: Kept) -> Cost:
    """The tasks without a network, every batch as long as its longest answer may be; of others nothing can be told."""
    evaluate, total = about.params.evaluate, Cost()
    local = [name for name in dict.fromkeys(evaluate.tasks) if name in LOCAL]
    rows = min(evaluate.batch_size, evaluate.task_examples)
    plain = replace(constants.FORWARD[model.dtype], layer_seconds=0.0)
    beside = work(
        about.machine, plain, model.dtype, about.anatomy, rows - 1, 1
    )  # rows that share a reading of the weights
    token = Cost(serial=beside.serial, device=decode_seconds(about, model) + beside.device * model.slowdown)
    token += Cost(device=(rows - 1) * about.anatomy.layers * constants.ROW_LAYER_SECONDS)
    for name in local:
        asked = constants.PROGRAM_BYTES if name == CODE else constants.LONGEST_CHAT_BYTES
        prompt = max(1, int(asked / about.chat_bytes_per_token))
        reading = work(about.machine, constants.FORWARD[model.dtype], model.dtype, about.anatomy, rows, prompt)
        batches = -(-evaluate.task_examples // rows)
        total += (reading + token * evaluate.task_tokens) * batches
        ran = constants.PROGRAM_SECONDS * evaluate.task_examples if name == CODE else 0.0
        total += Cost(serial=constants.TASK_SECONDS + ran)
    return total + Cost(serial=constants.HARNESS_SECONDS * bool(evaluate.tasks))


def tasks_memory(about: Subject) -> float:
    """Bytes of lm-eval and what it imports."""
    return constants.HARNESS_BYTES * bool(about.params.evaluate.tasks)
