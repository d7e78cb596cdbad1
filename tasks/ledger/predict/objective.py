"""What an objective costs beside next-token training: modules that are trained beside the model, a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks import accounting
from tasks.accounting.memory import head_gradient_bytes
from tasks.evaluate.loyalty import MAX_POSITIONS
from tasks.ledger.predict import constants
from tasks.ledger.predict.cost import Cost
from tasks.ledger.predict.resident import chunk_of_logits
from tasks.ledger.predict.steps import Steps
from tasks.ledger.predict.subject import Subject
from tasks.ledger.predict.text import acquiring_seconds
from tasks.models import Config

MODULE_ELEMENTS = 24
"""Elements that a module of `multi_token` keeps for its backward pass, in widths of the model per token: inputs of four
norms, of the projections, and of the gated layer, twice as wide (counted in `tasks.objectives.parts.future`)."""

ASKED_COPIES = 3.0
"""Float32 copies of a teacher's logits while it is asked: at the temperature, as probabilities, without the likeliest."""

INDEX_BYTES = 60
"""Of a sequence in the index of what the teacher said: key, size and checksum, written out."""


@dataclass(frozen=True)
class Beside:
    """Costs beside those of next-token training.

    Attributes:
        parameters: trained beside the model.
        shapes: of them.
        flops: per token of a step.
        teacher_flops: of all its forward passes.
        dtype: of the teacher's products.
        held: bytes in memory that stay: the teacher's weights.
        passing: bytes of a step: logits, what modules keep, what the teacher says.
        compared: FLOPs of comparing the model with its teacher at the end, which count as evaluation.
        fetching: seconds to make a teacher that isn't there yet.
        sampling: seconds of writing answers, token by token.
        cache: bytes on disk of what the teacher said.
        note: of the FLOPs.
    """

    parameters: int = 0
    shapes: tuple[tuple[int, ...], ...] = ()
    flops: float = 0.0
    teacher_flops: float = 0.0
    dtype: str = "float32"
    held: float = 0.0
    passing: float = 0.0
    compared: float = 0.0
    fetching: float = 0.0
    sampling: float = 0.0
    cache: float | None = None
    note: str = ""

    def asking(self, about: Subject) -> Cost:
        """Time of the teacher's forward passes, of comparing the model with it, and of fetching it."""
        rate = constants.FORWARD[self.dtype].gemm
        seconds = (self.teacher_flops + self.compared) / (about.machine.gemm_flops_per_second[self.dtype] * rate)
        return Cost(serial=self.fetching, device=seconds + self.sampling)


def beside(about: Subject) -> Beside:
    """What `pretrain.objective` adds to a run of `pretrain.steps`."""
    params = about.params.pretrain
    if not params.steps:
        return Beside()
    if params.objective.method == "multi_token":
        return _modules(about)
    if params.objective.method == "distillation" and about.teacher is not None:
        return _taught(about, about.teacher)
    return Beside()


def _part(about: Subject) -> float:
    """Tokens computed at a time."""
    params = about.params.pretrain
    return params.batch_size * params.context_length / params.gradient_accumulation_steps


def _modules(about: Subject) -> Beside:
    """Per depth a projection of 2 widths to 1 and a gated layer of 2 widths, with logits, at all but the last positions."""
    params, width, vocab = about.params.pretrain, about.anatomy.width, about.anatomy.vocab
    depths, length = params.objective.multi_token.mtp_num_layers, params.context_length
    matrices = 8 * width**2
    share = sum(length - ahead for ahead in range(1, depths + 1)) / length
    logits = depths * head_gradient_bytes(about.config) + constants.LOGIT_BYTES * chunk_of_logits(vocab, _part(about))
    return Beside(
        parameters=depths * (matrices + 4 * width),
        shapes=depths * (*[(width, 2 * width)] * 4, *[(width,)] * 4),
        flops=6 * (matrices + vocab * width) * share,
        passing=logits + _part(about) * share * 4 * MODULE_ELEMENTS * width,
        note=f"{depths} further tokens",
    )


def _taught(about: Subject, teacher: Config) -> Beside:
    """Every sequence is asked about once where the answers are kept, or at every step."""
    params, vocab = about.params.pretrain, about.anatomy.vocab
    fields, length = params.objective.distillation, params.context_length
    kept = 0 if fields.top_k is None else min(fields.top_k, vocab)
    spoken = vocab if fields.top_k is None else min(kept + 1, vocab)
    seen = params.steps * params.batch_size
    distinct = min(seen, max(1, int(about.train_tokens) // length))
    row = 4 * length * (spoken + kept) + INDEX_BYTES
    remembered = min(distinct, fields.max_cache_bytes // row) if kept else 0
    asked = seen - (seen - distinct) * remembered / distinct
    forward = accounting.forward_flops_per_token(teacher, length)
    both = forward + accounting.forward_flops_per_token(about.config, length)
    stored = 2 if str(teacher.get("dtype") or teacher.get("torch_dtype")) in ("bfloat16", "float16") else 4
    copies = 4 * (3 if kept else 2)  # the student's logarithms, without the likeliest, and their gradient
    return Beside(
        flops=2.0 * spoken,
        teacher_flops=asked * length * forward,
        dtype="bfloat16" if stored == 2 else "float32",
        held=stored * accounting.parameters(teacher),
        passing=copies * chunk_of_logits(vocab, _part(about))
        + _part(about) * (4 * spoken + 8 * kept)
        + ASKED_COPIES * 4 * length * vocab,
        compared=min(MAX_POSITIONS, about.heldout_tokens) * both,
        fetching=acquiring_seconds(Path(params.teacher), Path(params.teacher)),
        cache=remembered * row,
        note=f"the teacher reads {asked:.0f} of {seen} sequences",
    )


LOGIT_COPIES = 4
"""Float32 copies of a step's logits where they are not computed in pieces: they, their logarithms, both gradients."""


def preferring(about: Subject, steps: Steps, base: float) -> Beside:
    """What `finetune.objective` adds to steps forward and back: answers written, another model, logits all at once.

    Args:
        about: the lifecycle.
        steps: of the training.
        base: bytes of the base model in memory.
    """
    params = about.params.finetune
    objective = params.objective.technique
    written = steps.count * objective.written
    return Beside(
        sampling=written * base / about.machine.bandwidth_bytes_per_second,
        held=0.0 if params.technique.frozen or not objective.asks_base else base,
        passing=LOGIT_COPIES * 4.0 * about.anatomy.vocab * steps.tokens if objective.whole_logits else 0.0,
        note="every answer as long as may be" if written else "",
    )
