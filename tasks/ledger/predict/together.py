"""Memory of a pretraining that several workers share."""

from __future__ import annotations

from dataclasses import replace

from tasks import accounting
from tasks.ledger.predict import constants
from tasks.ledger.predict.resident import Parts, memory_parts, peak
from tasks.ledger.predict.steps import Steps
from tasks.ledger.predict.subject import Subject
from tasks.training.parallel import Parallel

NOTHING = Parts(0.0, 0.0, {}, 0, 0.0)
"""What training has left in the process of the stage: its workers have ended."""


def sharers(about: Subject) -> int:
    """Workers whose memory is the same: all of one machine, but with graphics cards each has one of its own."""
    return about.params.pretrain.parallel.nproc_per_node if about.machine.device == "cpu" else 1


def together(about: Subject, steps: Steps, weights: float, passing: float, kept: float) -> float:
    """Bytes above the libraries of one process: of the workers that share a memory, or of the evaluation after them.

    Args:
        about: the lifecycle.
        steps: of all workers.
        weights: bytes of the model in memory, and of what the objective keeps beside it.
        passing: bytes the objective takes within a step of the whole batch.
        kept: bytes of the weights that are evaluated.
    """
    parallel, base = about.params.pretrain.parallel, constants.BASE_MEMORY_BYTES["pretrain"]
    own = memory_parts(about, replace(steps, tokens=steps.tokens / parallel.workers), weights)
    worker = base + _held(about, parallel, steps, weights) + own.step + passing / parallel.workers
    return max(sharers(about) * worker - base, peak(about, NOTHING, kept))


def _held(about: Subject, parallel: Parallel, steps: Steps, weights: float) -> float:
    """Weights, gradients and optimizer state of one worker between its passes and at the fullest moment of them."""
    share = 0.5 if steps.pure else 1.0  # gradients and moments in bfloat16
    gradients, state, count = share * steps.gradients, share * steps.state, parallel.workers
    if parallel.sync_every > 1:  # where all met last, and the outer step's momentum
        return weights + gradients + state + share * 8 * steps.trained
    if parallel.strategy == "ddp":  # gradients twice: what is sent lies in buckets of its own
        return weights + 2 * gradients + state
    if parallel.strategy == "zero1":
        return weights + 2 * gradients + state / count
    gathered = weights
    if parallel.strategy != "zero2":  # embeddings and one block at a time
        anatomy = about.anatomy
        outside = anatomy.vocab * anatomy.width * (1 if anatomy.tied else 2) / accounting.parameters(about.config)
        gathered = weights * (outside + (1 - outside) / anatomy.layers)
    return gathered + (weights + gradients + state) / count
