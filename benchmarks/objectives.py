"""Objectives side by side: next-token loss at equal steps and at equal FLOPs, on bytes of the interpreter's library.

`python -m benchmarks.objectives` trains a teacher of 1.2 M parameters and, under each objective, students of 0.5 M, several
minutes on one core, and writes `benchmarks/results/objectives.md`. The learning rate is constant after its warm-up, so that
a run may be read off at any step. Half of the students' steps are a second epoch: the cache then answers for the teacher.
"""

from __future__ import annotations

import platform
import sysconfig
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.core.process import prepare
from tasks.models.load import new_model
from tasks.objectives.distillation import Distillation
from tasks.objectives.multi_token import MultiToken
from tasks.objectives.next_token import NextToken
from tasks.objectives.technique import ObjectiveTechnique
from tasks.optimizers.adamw import AdamW
from tasks.training.loop import Loop
from tasks.training.loss import next_token_loss
from tasks.training.schedule import Schedule
from tasks.training.settings import Settings

RESULT = Path("benchmarks/results/objectives.md")
LENGTH, BATCH, VOCAB = 128, 4, 256
STEPS, TEACHER_STEPS, EVERY = 160, 480, 20
SEEDS = {"next_token": (0, 1)}
"""Of the objectives that are run more than once: how far chance alone moves a loss."""
HELD = 64
"""Validation sequences."""

STUDENT = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
TEACHER = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 6, "num_attention_heads": 4}

OBJECTIVES: dict[str, ObjectiveTechnique] = {
    "next_token": NextToken(),
    "multi_token, 1 depth x 0.1": MultiToken(mtp_num_layers=1, mtp_loss_scaling_factor=0.1),
    "multi_token, 3 depths x 0.3": MultiToken(mtp_num_layers=3, mtp_loss_scaling_factor=0.3),
    "distillation, whole": Distillation(top_k=None),
    "distillation, top 8": Distillation(top_k=8),
}


@dataclass
class Curve:
    """A run: FLOPs and validation loss at every evaluation.

    Attributes:
        modules: parameters trained beside the model.
        cache: bytes on disk.
    """

    flops: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    modules: int = 0
    cache: float = 0.0

    def at(self, flops: float) -> float | None:
        """Loss after `flops`, between evaluations on a straight line; None beyond the last."""
        points = list(zip(self.flops, self.losses, strict=True))
        for (start, before), (end, after) in pairwise(points):
            if start <= flops <= end:
                return before + (after - before) * (flops - start) / (end - start)
        return None


def shape(sizes: dict[str, int]) -> dict[str, Any]:
    """The config of a Llama on bytes."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCAB,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
        "num_key_value_heads": sizes["num_attention_heads"],
        **sizes,
    }


def text() -> tuple[Any, Any]:
    """Training and held-out sequences (N, LENGTH + 1) of bytes: every eighth file of the library is held out."""
    import torch

    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    splits = []
    for held in (False, True):
        content = b"\n".join(path.read_bytes() for number, path in enumerate(files) if (number % 8 == 7) == held)
        ids = torch.frombuffer(bytearray(content), dtype=torch.uint8).long()
        rows = ids.unfold(0, LENGTH + 1, LENGTH)
        splits.append(rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))])
    return splits[0], splits[1][:HELD]


def run(model: Any, rows: Any, held: Any, settings: Settings) -> Curve:
    """Train on `rows`, epoch after epoch, and keep the curve."""
    import torch

    curve = Curve()

    def validate() -> float:
        model.eval()
        with torch.inference_mode():
            loss = float(next_token_loss(model, held[:, :-1], held[:, 1:]))
        curve.flops.append(loop.progress.flops)
        curve.losses.append(loss)
        return loss

    def batch(step: int) -> tuple[Any, Any]:
        chosen = rows[[(step * BATCH + row) % len(rows) for row in range(BATCH)]]
        return chosen[:, :-1], chosen[:, 1:]

    with tempfile.TemporaryDirectory() as work:
        loop = Loop(model, batch, settings, Job("objectives", Path(work)), validate)
        metrics = loop.run()
        curve.cache = float(metrics["teacher_cache_bytes"].value or 0) if "teacher_cache_bytes" in metrics else 0.0
    curve.modules = sum(parameter.numel() for parameter in loop.graph.beside.parameters())
    return curve


def settings(steps: int, seed: int, objective: ObjectiveTechnique, teacher: Path | None, form: str) -> Settings:
    """Those of every run."""
    return Settings(
        steps=steps,
        learning_rate=2e-3,
        schedule=Schedule(shape=form, warmup_steps=20),
        weight_decay=0.1,
        max_grad_norm=1.0,
        precision="fp32",
        checkpoint_every=10**6,
        seed=seed,
        optimizer=AdamW(),
        objective=objective,
        teacher=teacher,
        eval_every=EVERY,
    )


def measure() -> tuple[Curve, dict[str, list[Curve]]]:
    """The teacher's curve, and by objective the students' of every seed, 0 first."""
    train, held = text()
    few = train[: STEPS * BATCH // 2]
    curves: dict[str, list[Curve]] = {name: [] for name in OBJECTIVES}
    with tempfile.TemporaryDirectory() as folder:
        model = new_model(shape(TEACHER), seed=100)
        taught = run(model, train, held, settings(TEACHER_STEPS, 100, NextToken(), None, "cosine"))
        model.save_pretrained(folder)
        for name, objective in OBJECTIVES.items():
            for seed in SEEDS.get(name, (0,)):
                teacher = Path(folder) if isinstance(objective, Distillation) else None
                chosen = settings(STEPS, seed, objective, teacher, "constant")
                curves[name].append(run(new_model(shape(STUDENT), seed=seed), few, held, chosen))
                print(f"{name}, seed {seed}: {curves[name][-1].losses[-1]:.4f}", flush=True)
    return taught, curves


def page(taught: Curve, curves: dict[str, list[Curve]]) -> str:
    """The table, with what it can and can't say."""
    plain = curves["next_token"]
    budget = plain[0].flops[-1]
    rows = []
    for name, found in curves.items():
        one = found[0]
        equal = one.at(budget)
        told = f"{equal:.4f}" if equal is not None else "spent less"
        rows.append(
            f"| {name} | {one.modules:,} | {one.cache / 1e6:.1f} | {one.flops[-1] / 1e12:.3f} | {one.losses[-1]:.4f} | "
            f"{one.losses[-1] - plain[0].losses[-1]:+.4f} | {told} |"
        )
    spread = max(curve.losses[-1] for curve in plain) - min(curve.losses[-1] for curve in plain)
    return f"""# Objectives beside each other

`python -m benchmarks.objectives`: Llama of 0.5 M parameters on bytes, {STEPS} steps of {BATCH} x {LENGTH} bytes, the second half
a second epoch of the first; float32, AdamW, constant learning rate after a warm-up. Text: Python
{platform.python_version()}'s library, every eighth file held out. The loss is the next byte's in nats on {HELD} held-out sequences.
Teacher: 1.2 M parameters, {TEACHER_STEPS} steps on text of which the students see a part, loss {taught.losses[-1]:.4f},
{taught.flops[-1] / 1e12:.2f} TFLOP. FLOPs are counted; a teacher's forward passes are in them, its own training is not.

| objective | parameters beside | cache MB | TFLOP | loss at equal steps | beside next_token | loss at {budget / 1e12:.3f} TFLOP |
|---|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

- Two seeds of next_token differ by {spread:.4f}: smaller differences than that between objectives say nothing.
- Sizes, steps and text are tiny. Papers report that several tokens at once pay from billions of parameters on
  (arXiv:2404.19737, figure 3, where small models lose), so nothing here speaks for or against it at size.
- A teacher is not free: with its own training, every distilled student cost {taught.flops[-1] / 1e12:.2f} TFLOP more.
- The top k asks the teacher in the first epoch alone, the whole distribution in both: that is the difference in FLOPs.
"""


def main() -> None:
    """Measure and write the page."""
    RESULT.write_text(page(*measure()), encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    prepare()
    main()
