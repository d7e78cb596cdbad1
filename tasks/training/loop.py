"""The training loop: deterministic, resumable after any kill, watched by the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import Diverged, OverBudget
from tasks.core.job import Job
from tasks.core.measure import Metrics, Value, counted, measured, missing
from tasks.models.chat import IGNORED
from tasks.models.device import autocast
from tasks.training import checkpoint
from tasks.training.balance import BiasBalance
from tasks.training.flops import Flops
from tasks.training.loss import next_token_loss, training_losses
from tasks.training.schedule import Schedule

Batch = tuple[Any, Any]
"""Inputs and labels, each (B, T)."""


@dataclass(frozen=True)
class Settings:
    """What the loop needs to know; names as in params.yaml."""

    steps: int
    learning_rate: float
    schedule: Schedule
    weight_decay: float
    max_grad_norm: float
    precision: str
    checkpoint_every: int
    seed: int
    betas: tuple[float, float] = (0.9, 0.999)
    eval_every: int = 0


class Loop:
    """One training run of one model.

    Args:
        model: its parameters with `requires_grad` are trained.
        batch: the batch of a step; the same for the same step, so that a resumed run sees the same data.
        validate: the validation loss of the model as it is, or None.
    """

    def __init__(
        self,
        model: Any,
        batch: Callable[[int], Batch],
        settings: Settings,
        job: Job,
        validate: Callable[[], float] | None = None,
    ) -> None:
        self.model, self.batch, self.settings, self.job, self.validate = model, batch, settings, job, validate
        self.optimizer = _adamw(model, settings)
        self.balance = BiasBalance(model)
        self.progress = checkpoint.Progress()

    def run(self) -> Metrics:
        """Train to the last step and say what it took.

        Raises:
            Diverged: a loss or gradient that is not a number; the last checkpoint is kept.
            OverBudget: a resource ran out; a checkpoint of this very step is kept.
        """
        self.progress = checkpoint.restore(self.job, self.model, self.optimizer)
        self.job.flops = self.progress.flops
        self.model.train()
        flops = self._count_flops()
        with self.job.progress(self.settings.steps, self.progress.step) as bar:
            while self.progress.step < self.settings.steps:
                row = self._step(flops)
                bar.advance(1, loss=row["loss"], tokens_per_second=row["tokens_per_second"])
                self._record(row)
                self._stop_if_over_budget()
                if self.progress.step % self.settings.checkpoint_every == 0:
                    checkpoint.save(self.job, self.model, self.optimizer, self.progress)
        if self.progress.step:  # whatever stops the evaluation that follows, the training is kept
            checkpoint.save(self.job, self.model, self.optimizer, self.progress)
        self.model.eval()
        return self._metrics()

    def _count_flops(self) -> Flops:
        inputs, _ = self.batch(0)

        def one_sequence(length: int, labelled: int) -> None:
            ids = inputs[:1].repeat(1, -(-length // inputs.shape[1]))[:, :length]
            some = ids.clone()
            some[:, labelled:] = IGNORED
            next_token_loss(self.model, ids, some).backward()
            self.optimizer.zero_grad(set_to_none=True)

        return Flops(one_sequence)

    def _step(self, flops: Flops) -> dict[str, float]:
        import torch

        started, step, settings = time.perf_counter(), self.progress.step, self.settings
        torch.manual_seed(settings.seed * 1_000_003 + step)
        rate = settings.learning_rate * settings.schedule.ratio(step, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, labels = self.batch(step)
        learned = self._gradient(inputs, labels)
        self.optimizer.step()
        self.balance.update()
        self.optimizer.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        self.progress.step += 1
        self.progress.tokens += inputs.numel()
        self.progress.flops += flops.of(inputs.shape[0], inputs.shape[1], int((labels != IGNORED).sum()))
        self.progress.seconds += seconds
        self.progress.recent = [*self.progress.recent[-19:], learned["loss"]]
        return {
            "step": step,
            **learned,
            "learning_rate": rate,
            "tokens_per_second": inputs.numel() / seconds,
            "seconds": self.progress.seconds,
        }

    def _gradient(self, inputs: Any, labels: Any) -> dict[str, float]:
        """Forward and backward pass of one batch; `balance_loss` is in the gradient beside `loss`, not in it."""
        import torch

        settings = self.settings
        with autocast(settings.precision), self.balance.watching():
            loss, uneven = training_losses(self.model, inputs, labels)
        (loss if uneven is None else loss + uneven).backward()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        norm = float(torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(
                f"{self.job.stage}: the loss at step {self.progress.step} is not a number "
                f"(loss {value}, gradient norm {norm})",
                f"lower {self.job.stage}.learning_rate (now {settings.learning_rate}) or raise the warm-up; "
                "the last checkpoint is kept",
            )
        balance = {} if uneven is None else {"balance_loss": float(uneven.detach())}
        return {"loss": value, **balance, "grad_norm": norm}

    def _record(self, row: dict[str, float]) -> None:
        due = self.settings.eval_every and self.progress.step % self.settings.eval_every == 0
        loss = self.validate() if self.validate and due else ""
        self.model.train()
        self.job.record(**row, validation_loss=loss)

    def _stop_if_over_budget(self) -> None:
        self.job.flops = self.progress.flops
        reason = self.job.over_budget(self.progress.flops)
        if reason and self.progress.step < self.settings.steps:
            checkpoint.save(self.job, self.model, self.optimizer, self.progress)
            raise OverBudget(
                f"{self.job.stage}: stopped after step {self.progress.step} of {self.settings.steps}: {reason}",
                "a checkpoint is kept: raise the budget and run again, and it goes on from there",
            )

    def _metrics(self) -> Metrics:
        done = self.progress
        rate = done.flops / done.seconds
        peak = self.job.gemm_flops_per_second.get("bfloat16" if self.settings.precision == "bf16" else "float32")
        trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        mfu: Value = missing("the machine's matrix-product rate was not measured")
        if peak:
            mfu = measured(rate / peak, f"of {peak / 1e9:.0f} GFLOP/s measured in {self.settings.precision}")
        return {
            "trainable_parameters": counted(trainable),
            "tokens": counted(done.tokens, "padding included"),
            "flops": counted(done.flops, "operators of one sequence x sequences"),
            "training_seconds": measured(done.seconds),
            "tokens_per_second": measured(done.tokens / done.seconds),
            "flops_per_second": measured(rate),
            "mfu": mfu,
            "optimizer_bytes": counted(checkpoint.optimizer_bytes(self.optimizer)),
            "train_loss": measured(sum(done.recent) / len(done.recent), f"mean of the last {len(done.recent)} steps"),
            "communication_bytes": counted(0, "one worker"),
        }


def _adamw(model: Any, settings: Settings) -> Any:
    """AdamW (arXiv:1711.05101) with weight decay on matrices only."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
