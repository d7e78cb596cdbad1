"""Where a stage's resident memory comes from: libraries, weights, gradients, optimizer, activations, logits, allocator."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting.memory import activation_bytes, head_gradient_bytes, weight_copy_bytes
from tasks.ledger.predict import constants
from tasks.ledger.predict.quality import scoring_memory
from tasks.ledger.predict.steps import Steps
from tasks.ledger.predict.subject import Subject
from tasks.training.kernels import FEWEST, LOGITS


@dataclass(frozen=True)
class Parts:
    """Bytes of a training step, each above the libraries.

    Attributes:
        weights: of the model in memory.
        trained: gradients, and the optimizer's state, of what is trained.
        activations: what autograd keeps.
        checkpointed: the same under gradient checkpointing, which no stage uses yet.
        passing: copies of weights, logits and their gradients, what the allocator can't use again.
    """

    weights: float
    trained: float
    activations: int
    checkpointed: int
    passing: float

    @property
    def step(self) -> float:
        """What a step needs beside weights and optimizer."""
        return self.activations + self.passing


def memory_parts(about: Subject, steps: Steps, weights: float) -> Parts:
    """The parts of a training run; none but the weights where no step is taken."""
    if not steps.count:
        return Parts(weights, 0.0, 0, 0, 0.0)
    tokens = steps.tokens / steps.context * steps.largest
    element = 2 if steps.dtype == "bfloat16" else 4
    kept, checkpointed = (
        activation_bytes(about.config, int(tokens), way, element, steps.labelled, steps.largest)
        for way in (False, True)
    )
    adapters = int(tokens * steps.elements / 2 * element)
    logits = constants.LOGIT_BYTES * chunk_of_logits(about.anatomy.vocab, tokens * steps.labelled)
    if steps.trained >= about.anatomy.parameters:  # an adapter leaves the output layer as it is
        logits += head_gradient_bytes(about.config)
    shapes = constants.SHAPE_BYTES * (steps.lengths - 1) if element == 2 else 0
    wasted = constants.FRAGMENTED * (kept + adapters)
    passing = weight_copy_bytes(about.config, element) + logits + wasted + shapes
    return Parts(weights, float(steps.gradients + steps.state), kept + adapters, checkpointed + adapters, passing)


def chunk_of_logits(vocab: int, labelled: float) -> float:
    """Logits that are in memory at once while `labelled` tokens are learned from."""
    return vocab * min(labelled, max(FEWEST, LOGITS // vocab))


def peak(about: Subject, parts: Parts, kept: float) -> float:
    """Largest of the training step and of the evaluation after it, in a heap the training has left behind.

    Args:
        about: the lifecycle.
        parts: of the training.
        kept: bytes of the weights that are evaluated.
    """
    training = parts.weights + parts.trained + parts.step
    evaluation = kept + constants.RETAINED * parts.step + scoring_memory(about)
    return max(training, evaluation)
