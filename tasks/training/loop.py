"""The training loop: deterministic, resumable after any kill, watched by the budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tasks.core.errors import OverBudget
from tasks.core.job import Job, Row
from tasks.core.measure import Metrics, counted, measured
from tasks.models.device import products
from tasks.objectives.technique import Objective
from tasks.training import checkpoint
from tasks.training.balance import BiasBalance
from tasks.training.batch import Batch
from tasks.training.gradient import OUTSIDE, Gradient
from tasks.training.guard import Guard, Spike, Tally
from tasks.training.hooks import Hooks
from tasks.training.precision import lower, steps_of
from tasks.training.recompute import recompute
from tasks.training.saved import Saved
from tasks.training.settings import WINDOW, Settings
from tasks.training.watching import shown
from tasks.training.work import Work
from tasks.training.world import World
from tasks.training.zeroth_order import Slope

LAST = 20
"""Steps whose mean loss is the ledger's `train_loss`."""


class Loop:
    """One training run of one model.

    Args:
        model: its parameters with `requires_grad` are trained.
        batch: the batch of a number, whole; the same for the same number, so that a resumed run sees the same data. Step
            and number are the same until a batch is skipped.
        settings: of the run.
        job: what the shell lends.
        validate: the validation loss of the model as it is, or None.
        world: the workers; None: one.
        hooks: what a technique does between steps.
        objective: at work on the model already; None: the one of `settings` is begun.
    """

    def __init__(
        self,
        model: Any,
        batch: Callable[[int], Any],
        settings: Settings,
        job: Job,
        validate: Callable[[], float] | None = None,
        world: World | None = None,
        hooks: Hooks | None = None,
        objective: Objective | None = None,
    ) -> None:
        from tasks.training.graph import Graph

        self.model, self.batch, self.settings, self.job, self.validate = model, batch, settings, job, validate
        self.world, self.hooks = world or World(), hooks or Hooks()
        self.objective = objective or settings.objective.begin(model, job, settings.teacher)
        self.graph = Graph(model, self.objective, self.hooks)
        recompute(model, settings.gradient_checkpointing)
        lower(self.graph, settings.precision)
        self.module = self.world.wrap(self.graph)
        named = self.graph.trained()
        optimizer = self.world.optimizer(settings.optimizer, named, settings.learning_rate, settings.weight_decay)
        self.optimizer = steps_of(optimizer, settings.optimizer, settings.precision)
        kind = Slope if settings.optimizer.zeroth_order else Gradient
        trained = [parameter for _, parameter in named]
        self.gradient = kind(self.module, trained, settings, self.world, self.optimizer, self.objective, job.stage)
        peak = job.gemm_flops_per_second.get(products(settings.precision))
        self.work = Work(
            self.graph, self.module, self.objective, self.hooks, settings, self.world, self._rehearse, peak
        )
        self.balance = BiasBalance(model, self.world.total_tensor)
        self.saved = Saved(self.graph, settings, self.world)
        self.progress, kept = checkpoint.Progress(), settings.keep_checkpoints
        self.keeper = checkpoint.Keeper(job, self.world, self.graph, self.optimizer, self.gradient, kept)
        self.guard, self.tally = Guard(settings.spikes, job, self.world), Tally(job.work / "steps.done")

    def run(self) -> Metrics:
        """Train to the last step and say what it took.

        Raises:
            Diverged: losses or gradients went wrong more often than `spikes.max_skipped`; the last checkpoint is kept.
            OverBudget: a resource ran out; a checkpoint of this very step is kept.
        """
        from tasks.training.kernels.prepared import prepared

        with self.keeper, prepared(self.model, self.settings):
            self._begin()
            self.hooks.before_step(self.progress.step, self.optimizer)
            if self.settings.gradient_checkpointing != "none":
                self.work.begin(Batch.of(self.batch(0)))
            with self.job.progress(self.settings.steps, self.progress.step) as bar:
                while not self._over():
                    before = self.progress.step
                    try:
                        row = self._step()
                    except Spike as spike:
                        self._go_back(spike)
                        bar.advance(self.progress.step - before)
                        continue
                    self.keeper.check()
                    reason = self._look()
                    row |= self.job.spent()
                    self._record(row)
                    bar.advance(1, **shown(row), **self.job.left())
                    self._stop(reason)
                    due = self.progress.step % self.settings.checkpoint_every == 0
                    if due or self.progress.step == self.progress.best:
                        self.keeper.save(self.progress)
            if self.progress.step:  # whatever stops the evaluation that follows, the training is kept
                self.keeper.save(self.progress)
                if self.progress.best:
                    self.keeper.take(self.progress.best)
        self._stand("eval")
        return self._metrics()

    def _over(self) -> bool:
        """Whether nothing is left to do, or nothing more to expect."""
        patience = self.settings.early_stopping_patience
        return self.progress.step >= self.settings.steps or (patience is not None and self.progress.waited >= patience)

    def _stand(self, mode: str) -> None:
        """Model, and an optimizer that keeps averages, in mode `train` or `eval`; checkpoints are written in `train`."""
        getattr(self.module, mode)()
        if self.settings.optimizer.schedule_free:
            getattr(self.optimizer, mode)()

    def _begin(self) -> None:
        """Go on from a checkpoint, or make the one that every later step can go back to."""
        self.progress = self.keeper.restore()
        self.job.flops = self.progress.flops
        if self.progress.step:
            self.job.say(f"goes on from step {self.progress.step}")
        else:
            self.keeper.save(self.progress)
        self._stand("train")
        if not self._over():
            first = Batch.of(self.batch(self.guard.batch_of(self.progress.step))).rows(0, 1)
            extras = first.extras | self.objective.rehearsal(first.inputs)
            self.world.warm_up(self.module, Batch(first.inputs, first.labels, extras))

    def _go_back(self, spike: Spike) -> None:
        """To the last checkpoint, never to see this step's batch again."""
        stage, settings = self.job.stage, self.settings
        mend = f"lower {stage}.learning_rate (now {settings.learning_rate}) or raise the warm-up: training then begins anew"
        self.guard.skip(self.progress.step, spike, mend)
        self.optimizer.zero_grad(set_to_none=True)
        self.progress = self.keeper.restore(back=True)

    def _rehearse(self, batch: Batch) -> None:
        """A gradient that nothing comes of."""
        self.gradient.rehearse(self.graph, batch)
        self.optimizer.zero_grad(set_to_none=True)

    def _step(self) -> Row:
        import torch

        started, step, settings = time.perf_counter(), self.progress.step, self.settings
        torch.manual_seed(settings.seed * 1_000_003 + step)
        rate = settings.learning_rate * settings.schedule.ratio(step, settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.hooks.before_step(step, self.optimizer)
        batch = Batch.of(self.batch(self.guard.batch_of(step)))
        with self.balance.watching(), self.saved.watching(self.progress):
            learned = self.gradient.compute(batch)
        outside = learned.pop(OUTSIDE, 0.0)
        self.guard.judge(learned["loss"], learned["grad_norm"], self.progress.recent)
        self.optimizer.step()
        self.balance.update()
        self.hooks.after_step(step)
        self.optimizer.zero_grad(set_to_none=True)
        self.world.after_step(step + 1, settings.steps)
        seconds = time.perf_counter() - started
        work = self.work.of(batch)
        done, most, mfu = self.progress, max(WINDOW, settings.spikes.window), self.work.mfu(work / seconds)
        done.step += 1
        done.tokens += batch.inputs.numel()
        done.flops += work + outside
        done.seconds += seconds
        done.recent = [*done.recent[1 - most :], learned["loss"]] if most > 1 else [learned["loss"]]
        return {
            "step": step,
            **learned,
            "learning_rate": rate,
            "tokens_per_second": batch.inputs.numel() / seconds,
            "mfu": "" if mfu is None else mfu,
            "seconds": done.seconds,
        }

    def _record(self, row: Row) -> None:
        step, stopping = self.progress.step, self.settings.early_stopping_patience is not None
        due = self.settings.eval_every and step % self.settings.eval_every == 0
        due = due or (stopping and step == self.settings.steps)  # the last weights have a chance too
        loss: float | str = ""
        if self.validate and due:
            self._stand("eval")
            loss = self.validate()
            self._stand("train")
            if stopping:
                self.progress.validated.append((step, loss))
        if self.world.is_main:
            self.tally.add()
            self.job.record(**row, validation_loss=loss)

    def _look(self) -> str:
        """Which resource of the budget ran out, or ""."""
        self.job.flops = self.progress.flops
        return self.world.agreed(self.job.over_budget(self.progress.flops) if self.world.is_main else "")

    def _stop(self, reason: str) -> None:
        if reason and self.progress.step < self.settings.steps:
            self.keeper.save(self.progress)
            self.keeper.wait()
            raise OverBudget(
                f"{self.job.stage}: stopped after step {self.progress.step} of {self.settings.steps}: {reason}",
                "a checkpoint is kept: raise the budget and run again, and it goes on from there",
            )

    def _metrics(self) -> Metrics:
        done, skipped = self.progress, sorted(self.guard.skipped)
        rate, last = done.flops / done.seconds, done.recent[-LAST:]
        return {
            "trainable_parameters": counted(sum(p.numel() for _, p in self.graph.trained())),
            "tokens": counted(done.tokens, "padding included"),
            "flops": counted(done.flops, self.work.note()),
            "training_seconds": measured(done.seconds),
            "tokens_per_second": measured(done.tokens / done.seconds),
            "flops_per_second": measured(rate),
            "mfu": self.work.reached(rate),
            "optimizer_bytes": counted(self.world.optimizer_bytes(self.optimizer)),
            "train_loss": measured(sum(last) / len(last), f"mean of the last {len(last)} steps"),
            "skipped_batches": counted(len(skipped), f"numbers {', '.join(map(str, skipped))}" if skipped else ""),
            "repeated_steps": counted(self.tally.beyond(done.step), "steps done beside those that count"),
            **self.gradient.metrics(),
            **self.saved.metrics(done),
            **({"best_step": counted(done.best, f"of {done.step} done")} if done.best else {}),
            **self.objective.metrics(),
            **self.world.metrics(),
        }
