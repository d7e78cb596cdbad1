"""The training loop: deterministic, resumable after any kill, watched by the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from tasks.core.errors import Diverged, OverBudget
from tasks.core.job import Job
from tasks.core.measure import Metrics, Value, counted, measured, missing
from tasks.models.chat import IGNORED
from tasks.models.device import products
from tasks.training import checkpoint
from tasks.training.balance import BiasBalance
from tasks.training.batch import Batch
from tasks.training.flops import Flops
from tasks.training.gradient import Gradient
from tasks.training.precision import lower, steps_of
from tasks.training.recompute import everything_kept, recompute
from tasks.training.settings import Settings
from tasks.training.world import World


class Loop:
    """One training run of one model.

    Args:
        model: its parameters with `requires_grad` are trained.
        batch: the batch of a step, whole; the same for the same step, so that a resumed run sees the same data.
        settings: of the run.
        job: what the shell lends.
        validate: the validation loss of the model as it is, or None.
        world: the workers; None: one.
    """

    def __init__(
        self,
        model: Any,
        batch: Callable[[int], Any],
        settings: Settings,
        job: Job,
        validate: Callable[[], float] | None = None,
        world: World | None = None,
    ) -> None:
        from tasks.training.graph import Graph

        self.model, self.batch, self.settings, self.job, self.validate = model, batch, settings, job, validate
        self.world = world or World()
        self.graph = Graph(model, settings.objective.begin(model, job))
        recompute(model, settings.gradient_checkpointing)
        lower(self.graph, settings.precision)
        self.module = self.world.wrap(self.graph)
        named = self.graph.trained()
        optimizer = settings.optimizer.build(named, settings.learning_rate, settings.weight_decay)
        self.optimizer = steps_of(optimizer, settings.optimizer, settings.precision)
        self.gradient = Gradient(self.module, [p for _, p in named], settings, self.world)
        self.balance = BiasBalance(model)
        self.progress = checkpoint.Progress()

    def run(self) -> Metrics:
        """Train to the last step and say what it took.

        Raises:
            Diverged: a loss or gradient that is not a number; the last checkpoint is kept.
            OverBudget: a resource ran out; a checkpoint of this very step is kept.
        """
        self.progress = checkpoint.restore(self.job, self.graph, self.optimizer)
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
                    self._save()
        if self.progress.step:  # whatever stops the evaluation that follows, the training is kept
            self._save()
        self.model.eval()
        return self._metrics()

    def _save(self) -> None:
        checkpoint.save(self.job, self.graph, self.optimizer, self.progress)

    def _count_flops(self) -> Flops:
        batch = Batch.of(self.batch(0)).rows(0, 1)

        def one_sequence(length: int, labelled: int) -> None:
            ids = batch.inputs.repeat(1, -(-length // batch.inputs.shape[1]))[:, :length]
            some = ids.clone()
            some[:, labelled:] = IGNORED
            total, _ = self.graph(ids, some, {})
            total.backward()
            self.optimizer.zero_grad(set_to_none=True)

        return Flops(one_sequence)

    def _step(self, flops: Flops) -> dict[str, float]:
        import torch

        started, step, settings = time.perf_counter(), self.progress.step, self.settings
        torch.manual_seed(settings.seed * 1_000_003 + step)
        rate = settings.learning_rate * settings.schedule.ratio(step, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        batch = Batch.of(self.batch(step))
        with self.balance.watching():
            learned = self.gradient.compute(batch)
        self._refuse_divergence(learned)
        self.optimizer.step()
        self.balance.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.world.after_step(step + 1, settings.steps)
        seconds = time.perf_counter() - started
        self.progress.step += 1
        self.progress.tokens += batch.inputs.numel()
        self.progress.flops += flops.of(batch.inputs.shape[0], batch.inputs.shape[1], batch.labelled)
        self.progress.seconds += seconds
        self.progress.recent = [*self.progress.recent[-19:], learned["loss"]]
        return {
            "step": step,
            **learned,
            "learning_rate": rate,
            "tokens_per_second": batch.inputs.numel() / seconds,
            "seconds": self.progress.seconds,
        }

    def _refuse_divergence(self, learned: dict[str, float]) -> None:
        value, norm, settings = learned["loss"], learned["grad_norm"], self.settings
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(
                f"{self.job.stage}: the loss at step {self.progress.step} is not a number "
                f"(loss {value}, gradient norm {norm})",
                f"lower {self.job.stage}.learning_rate (now {settings.learning_rate}) or raise the warm-up; "
                "the last checkpoint is kept",
            )

    def _record(self, row: dict[str, float]) -> None:
        due = self.settings.eval_every and self.progress.step % self.settings.eval_every == 0
        loss = self.validate() if self.validate and due else ""
        self.model.train()
        self.job.record(**row, validation_loss=loss)

    def _stop_if_over_budget(self) -> None:
        self.job.flops = self.progress.flops
        reason = self.job.over_budget(self.progress.flops)
        if reason and self.progress.step < self.settings.steps:
            self._save()
            raise OverBudget(
                f"{self.job.stage}: stopped after step {self.progress.step} of {self.settings.steps}: {reason}",
                "a checkpoint is kept: raise the budget and run again, and it goes on from there",
            )

    def _useful(self) -> float:
        """Share of the executed FLOPs that the model itself takes, at the first batch: all but what is computed again."""
        if self.settings.gradient_checkpointing == "none":
            return 1.0
        batch = Batch.of(self.batch(0))
        shape = (batch.inputs.shape[0], batch.inputs.shape[1], batch.labelled)
        self.model.train()
        executed = self._count_flops().of(*shape)
        with everything_kept(self.model):
            useful = self._count_flops().of(*shape)
        self.model.eval()
        return useful / executed

    def _metrics(self) -> Metrics:
        done = self.progress
        rate = done.flops / done.seconds
        peak = self.job.gemm_flops_per_second.get(products(self.settings.precision))
        trainable = sum(p.numel() for _, p in self.graph.trained())
        mfu: Value = missing("the machine's matrix-product rate was not measured")
        if peak:
            mfu = measured(
                self._useful() * rate / peak, f"of {peak / 1e9:.0f} GFLOP/s measured in {self.settings.precision}"
            )
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
            **self.world.metrics(),
        }
