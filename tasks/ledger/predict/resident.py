"""Where a stage's resident memory comes from: libraries, weights, gradients, optimizer, activations, logits, allocator."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.accounting.memory import (
    CHECKPOINTING,
    activation_bytes,
    forward_bytes,
    head_gradient_bytes,
    weight_copy_bytes,
)
from tasks.ledger.predict import constants
from tasks.ledger.predict.quality import scoring_memory, tasks_memory
from tasks.ledger.predict.steps import Steps
from tasks.ledger.predict.subject import Subject
from tasks.training.kernels import FEWEST, LOGITS


@dataclass(frozen=True)
class Parts:
    """Bytes of a training step, each above the libraries.

    Attributes:
        weights: of the model in memory.
        trained: gradients, and the optimizer's state, of what is trained.
        ways: what autograd keeps, by way of gradient checkpointing.
        activations: the same in the way that is chosen.
        passing: copies of weights, logits and their gradients, what the allocator can't use again.
        copied: weights and optimizer state of a checkpoint, while a thread writes them beside the next step.
    """

    weights: float
    trained: float
    ways: dict[str, int]
    activations: int
    passing: float
    copied: float = 0.0

    @property
    def step(self) -> float:
        """What a step needs beside weights and optimizer."""
        return self.activations + self.passing


def memory_parts(about: Subject, steps: Steps, weights: float) -> Parts:
    """The parts of a training run; none but the weights where no step is taken."""
    if not steps.count:
        return Parts(weights, 0.0, {}, 0, 0.0)
    sequences = -(-(steps.tokens / steps.context) // steps.parts)  # of the largest part
    tokens = steps.most or sequences * steps.largest
    element = 4 if steps.dtype == "float32" else 2
    exact = steps.learning is not None and steps.learning.beside is not None
    adapters = 0 if exact else int(tokens * steps.elements / 2 * element)
    ways = {
        way: activation_bytes(about.config, int(tokens), way, element, steps.labelled, steps.largest, steps.learning)
        + adapters
        for way in CHECKPOINTING
    }
    forward = 0
    if not steps.backward:
        ways, forward = (
            dict.fromkeys(CHECKPOINTING, 0),
            forward_bytes(about.config, int(tokens), element, steps.largest),
        )
    kept = ways[steps.checkpointing]
    logits = constants.LOGIT_BYTES * chunk_of_logits(about.anatomy.vocab, tokens * steps.labelled)
    if steps.head and steps.backward:
        logits += head_gradient_bytes(about.config)
    shapes = constants.SHAPE_BYTES * (steps.lengths - 1) if element == 2 else 0
    holes = constants.FRAGMENTED[steps.checkpointing] + (constants.BETWEEN_PARTS if steps.parts > 1 else 0.0)
    wasted = holes * (kept + forward)
    copies = 0 if steps.pure else weight_copy_bytes(about.config, element)
    passing = copies + logits + wasted + shapes + forward
    gradients = steps.gradients / 2 if steps.pure else steps.gradients
    return Parts(weights, gradients + steps.state, ways, kept, passing)


def chunk_of_logits(vocab: int, labelled: float) -> float:
    """Logits that are in memory at once while `labelled` tokens are learned from."""
    return vocab * min(labelled, max(FEWEST, LOGITS // vocab))


def peak(about: Subject, parts: Parts, kept: float) -> float:
    """Largest of the training step and of the evaluation after it, which uses what the training has left of the heap.

    Args:
        about: the lifecycle.
        parts: of the training.
        kept: bytes of the weights that are evaluated.
    """
    training = parts.weights + parts.trained + parts.step + parts.copied
    evaluation = kept + max(constants.RETAINED * parts.step, scoring_memory(about)) + tasks_memory(about)
    return max(training, evaluation)
