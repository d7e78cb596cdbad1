"""Distillation in pretraining: the teacher's next-token distribution beside the text's next token."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted
from tasks.models.chat import IGNORED
from tasks.objectives.technique import Losses, Objective, ObjectiveTechnique
from tasks.training.batch import Batch

LIKELY, IDS = "teacher_log_probabilities", "teacher_ids"
"""What the teacher said, in a batch's extras: (B, T, V), or (B, T, top_k + 1) with the ids (B, T, top_k) it speaks of."""


class Distillation(ObjectiveTechnique):
    """Learn a teacher's distribution of the next token (arXiv:1503.02531; top-k of it, cached: arXiv:2503.16870).

    The loss is (1 - alpha) x cross-entropy + alpha x temperature^2 x KL(teacher || student), both distributions at the
    temperature. Of a `top_k` the KL is that of top_k + 1 outcomes, the last being any other token: never more than the
    full one, and zero only where student and teacher agree on every outcome. The teacher is `pretrain.teacher`.
    """

    temperature: PositiveFloat = 1.0
    """Logits of both are divided by this; above 1 unlikely tokens count for more."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teacher's distribution; the text's own tokens have the rest."""
    top_k: PositiveInt | None = 32
    """Likeliest tokens of the teacher that are kept, on disk; null: its whole distribution, asked for anew at every step."""
    max_cache_bytes: NonNegativeInt = 4 << 30
    """Of the disk that what the teacher said may take; beyond, and with 0 at once, it is asked every time."""

    def begin(self, model: Any, job: Job, teacher: Path | None = None) -> Objective:
        """The teacher loaded, and what it has said in earlier attempts found again.

        Raises:
            UserError: no teacher, one with another vocabulary, or a `top_k` beyond the vocabulary.
        """
        from tasks.objectives.parts.teacher import Teacher

        if teacher is None:
            raise UserError(
                "pretrain.objective.method: found distillation; there is no teacher", "name a model in pretrain.teacher"
            )
        made, own = Teacher(teacher, self.temperature), int(model.config.get_text_config().vocab_size)
        if made.vocab != own:
            raise UserError(
                f"pretrain.teacher '{teacher}': its vocabulary has {made.vocab} tokens, the model's {own}",
                "take a teacher with the same tokenizer, or its tokenizer and vocabulary for the model",
            )
        if self.top_k is not None and self.top_k > own:
            raise UserError(
                f"pretrain.objective.distillation.top_k: found {self.top_k}; the vocabulary has {own} tokens",
                "lower it",
            )
        return DistillationLoss(self, made, job)


class DistillationLoss(Objective):
    """A teacher beside the model. Each worker of a parallel run keeps what its teacher said for itself.

    Args:
        fields: of the objective.
        teacher: at work.
        job: its work folder takes the cache.
    """

    outside = True

    def __init__(self, fields: Distillation, teacher: Any, job: Job) -> None:
        from tasks.objectives.parts.cache import Cache

        super().__init__()
        self.fields, self.teacher, self.asked, self.found = fields, teacher, 0, 0
        self.cache: Any = None
        if fields.top_k is not None and fields.max_cache_bytes:
            about = {"top_k": fields.top_k, "temperature": fields.temperature, "vocab": teacher.vocab}
            place = job.work / "teacher" / f"worker-{os.environ.get('RANK', '0')}"
            self.cache = Cache(place, about, fields.max_cache_bytes)

    def prepare(self, batch: Batch) -> Batch:
        """`batch` with what the teacher says of it; the teacher is asked only about rows it was never asked about."""
        import torch

        documents, top_k = batch.extras.get("documents"), self.fields.top_k
        if top_k is None:
            self.asked += len(batch.inputs)
            said = {LIKELY: torch.cat(list(self.teacher.log_probabilities(batch.inputs, documents)))}
        elif self.cache is None:
            said = dict(zip((LIKELY, IDS), self._ask(batch.inputs, documents), strict=True))
        else:
            said = self._remembered(batch.inputs, documents)
        return Batch(batch.inputs, batch.labels, batch.extras | said)

    def _ask(self, inputs: Any, documents: Any) -> tuple[Any, Any]:
        assert self.fields.top_k is not None
        self.asked += len(inputs)
        likely, ids = self.teacher.likeliest(inputs, self.fields.top_k, documents)
        return likely, ids

    def _remembered(self, inputs: Any, documents: Any) -> dict[str, Any]:
        import torch

        from tasks.objectives.parts.cache import keys_of

        keys = keys_of(inputs, documents)
        known = {key: self.cache.get(key) for key in keys}
        self.found += sum(known[key] is not None for key in keys)
        new = [keys.index(key) for key, row in known.items() if row is None]
        if new:
            likely, ids = self._ask(inputs[new], None if documents is None else documents[new])
            fresh = {keys[row]: _packed(*pair) for row, *pair in zip(new, likely, ids, strict=True)}
            self.cache.put(fresh)
            known |= fresh
        rows = [_unpacked(known[key], inputs.shape[1], self.fields.top_k) for key in keys]
        return {
            name: torch.stack(parts).to(inputs.device)
            for name, parts in zip((LIKELY, IDS), zip(*rows, strict=True), strict=True)
        }

    def rehearsal(self, inputs: Any) -> dict[str, Any]:
        """Zeros in the place of what the teacher would say."""
        vocab, top_k = self.teacher.vocab, self.fields.top_k
        likely = inputs.new_zeros(*inputs.shape, vocab if top_k is None else min(top_k + 1, vocab)).float()
        return {LIKELY: likely} if top_k is None else {LIKELY: likely, IDS: inputs.new_zeros(*inputs.shape, top_k)}

    def spent(self) -> float:
        """FLOPs of the teacher since this was last asked."""
        flops, self.teacher.flops = self.teacher.flops, 0.0
        return float(flops)

    def losses(self, model: Any, inputs: Any, labels: Any, extras: dict[str, Any]) -> Losses:
        """`loss`, and `distillation_loss`: the KL in nats, before temperature^2 and alpha."""
        import torch

        from tasks.training.kernels.cross_entropy import chunked
        from tasks.training.loss import causal_of, decoded

        hidden, uneven = decoded(model, inputs, labels, extras.get("documents"))
        head, labelled = causal_of(model).get_output_embeddings(), labels != IGNORED
        rows, wanted, likely = hidden[labelled], labels[labelled], extras[LIKELY][labelled]
        ids = extras[IDS][labelled] if IDS in extras else None

        def each(logits: Any, part: slice) -> tuple[Any, Any]:
            with torch.enable_grad():
                logits = logits.detach().requires_grad_()
                sums = self._sums(logits, wanted[part], likely[part], None if ids is None else ids[part])
                (slopes,) = torch.autograd.grad(sums[0], logits)
            return sums.detach(), slopes

        if type(head) is torch.nn.Linear and head.bias is None:
            total, loss, apart = chunked(rows, head.weight, each)
        else:
            total, loss, apart = self._sums(head(rows).float(), wanted, likely, ids) / len(rows)
        shown = {"loss": loss, "distillation_loss": apart}
        if uneven is None:
            return Losses(total, shown)
        return Losses(total + uneven, {**shown, "balance_loss": uneven})

    def _sums(self, logits: Any, wanted: Any, likely: Any, ids: Any) -> Any:
        """Over tokens: what is learned, cross-entropy, divergence (3,), from logits (n, V) in float32."""
        import torch

        alpha, temperature = self.fields.alpha, self.fields.temperature
        loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        apart = divergence(logits / temperature, likely, ids)
        return torch.stack([(1 - alpha) * loss + alpha * temperature**2 * apart, loss, apart])

    def metrics(self) -> Metrics:
        """Bytes the cache takes."""
        if self.cache is None:
            return {"teacher_cache_bytes": counted(0, f"no cache; the teacher was asked about {self.asked} sequences")}
        note = f"{len(self.cache)} sequences kept; in this attempt {self.asked} asked for and {self.found} found"
        return {"teacher_cache_bytes": counted(self.cache.size, note)}


def divergence(logits: Any, likely: Any, ids: Any = None) -> Any:
    """KL(teacher || student) in nats, summed over positions.

    Args:
        logits: the student's (N, V), divided by the temperature.
        likely: the teacher's log-probabilities: (N, V), or of some tokens and then of all others together (N, K + 1).
        ids: those tokens (N, K); None: all, in their order.
    """
    import torch

    from tasks.objectives.parts.teacher import with_rest

    own = logits.log_softmax(-1)
    if ids is not None:
        own = with_rest(own, own.gather(-1, ids), ids)
    return torch.nn.functional.kl_div(own, likely, reduction="sum", log_target=True)


def _packed(likely: Any, ids: Any) -> bytes:
    """A row's log-probabilities (T, W) in float32, then its ids (T, K) as 32-bit integers."""
    import torch

    return bytes(
        likely.cpu().numpy().astype("<f4").tobytes() + ids.cpu().to(torch.int32).numpy().astype("<i4").tobytes()
    )


def _unpacked(row: Any, length: int, top_k: int | None) -> tuple[Any, Any]:
    """The tensors of `_packed`: exactly what went in."""
    import numpy as np
    import torch

    assert top_k is not None
    words = np.frombuffer(row, dtype="<i4")
    ids = words[-length * top_k :].astype(np.int64).reshape(length, top_k)
    likely = words[: -length * top_k].view("<f4").copy().reshape(length, -1)
    return torch.from_numpy(likely), torch.from_numpy(ids)
