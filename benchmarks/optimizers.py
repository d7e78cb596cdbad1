"""Every optimizer on one small Llama: bytes of state, tensors at the peak, and validation loss after equal steps.

`python -m benchmarks.optimizers [--steps 30]` writes benchmarks/results/optimizers.md. Text: modules
of the standard library, byte by byte. Each optimizer takes the better of two learning rates, AdamW's times
a factor (`RELATIVE`) and three times that; all see the same batches from the same weights. Nothing is timed.
"""

from __future__ import annotations

import argparse
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

import torch

from tasks.core.process import prepare
from tasks.models.load import new_model
from tasks.optimizers import Optimizer
from tasks.optimizers.technique import OptimizerTechnique
from tasks.training.loss import next_token_loss
from tasks.training.schedule import Schedule

CONTEXT, BATCH, HELD = 64, 4, 64
RATE, SPREAD = 2e-3, (1.0, 3.0)
RELATIVE = {"lion": 0.2, "adafactor": 10.0, "galore": 4.0, "schedule_free": 3.0, "sgd": 30.0, "lomo": 300.0}
RELATIVE |= {"adalomo": 10.0, "mezo": 0.05}
"""The lower learning rate over AdamW's, where it is not AdamW's."""
OUT = Path(__file__).parent / "results" / "optimizers.md"

Sequences = tuple[Any, Any]
Deal = Callable[[int], Sequences]


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        loss: on held-out text, after the last step; infinite where it is no number.
        state: bytes of the optimizer's state.
        gradients: most bytes of gradients that lived at once.
    """

    loss: float
    state: int
    gradients: int


def main() -> None:
    """Train all of them, and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps
    vocabulary, source, deal, held = _text()
    shapes = [tuple(p.shape) for p in _model(vocabulary).parameters()]
    size = sum(map(prod, shapes))
    lines = [*_head(size, source, steps)]
    for name, kind in Optimizer.techniques().items():
        technique: OptimizerTechnique = kind()  # type: ignore[assignment]
        runs = {
            rate: train(technique, rate, steps, vocabulary, deal, held)
            for rate in (RATE * RELATIVE.get(name, 1.0) * factor for factor in SPREAD)
        }
        rate, best = min(runs.items(), key=lambda run: run[1].loss)
        others = ", ".join(f"{other:.2g}: {run.loss:.3f}" for other, run in runs.items() if other != rate)
        formula = technique.state_bytes(shapes) / size
        peak = (4 * size + best.gradients + best.state) / size
        lines.append(
            f"| {name} | {best.state / size:.3f} | {formula:.3f} | {peak:.2f} | {rate:.2g} | {best.loss:.3f} | {others} |"
        )
        print(lines[-1], flush=True)
        OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def train(
    technique: OptimizerTechnique, rate: float, steps: int, vocabulary: int, deal: Deal, held: Sequences
) -> Result:
    """One run from the same weights over the same batches."""
    model = _model(vocabulary)
    gradients = _watch(model)
    optimizer: Any = technique.build(list(model.named_parameters()), rate, 0.1)
    schedule = Schedule(shape="constant" if technique.schedule_free else "cosine", warmup_steps=steps // 10)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule.ratio(step, steps) * group.get("lr_scale", 1.0)
        _look(technique, optimizer, model, deal(step), step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if technique.schedule_free:
        optimizer.eval()
    with torch.inference_mode():
        final = float(next_token_loss(model, *held))
    values = [value for row in optimizer.state_dict()["state"].values() for value in row.values()]
    return Result(final if isfinite(final) else float("inf"), sum(v.nbytes for v in values), max(gradients))


def _look(technique: OptimizerTechnique, optimizer: Any, model: Any, batch: Any, step: int) -> None:
    """What comes before an optimizer's step: gradients, clipped, or what it has instead of them."""
    if technique.zeroth_order:
        torch.manual_seed(step)
        optimizer.estimate(lambda: float(next_token_loss(model, *batch)), 1.0)
        return
    loss = next_token_loss(model, *batch)
    if technique.in_backward:
        with optimizer.moving(1.0):
            loss.backward()
    else:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def _watch(model: Any) -> list[int]:
    """Bytes of gradients alive whenever one has just been made; to be called before an optimizer takes them away."""
    seen: list[int] = [0]

    def note(_: Any) -> None:
        seen.append(sum(p.grad.nbytes for p in model.parameters() if p.grad is not None))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(note)
    return seen


def _model(vocabulary: int) -> Any:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
    }
    return new_model(config, seed=0)


def _text() -> tuple[int, str, Deal, Sequences]:
    """Vocabulary, where the text is from, the batch of a step, and held-out sequences."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = torch.tensor(list(b"\n".join(path.read_bytes() for path in files)[: 1 << 20]))
    rows = text[: len(text) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    kept, learned = rows[:HELD], rows[HELD:]

    def deal(step: int) -> Sequences:
        made = learned[torch.randint(len(learned), (BATCH,), generator=torch.Generator().manual_seed(step))]
        return made[:, :-1], made[:, 1:]

    return 256, "modules of the standard library, byte by byte", deal, (kept[:, :-1], kept[:, 1:])


def _head(size: int, source: str, steps: int) -> list[str]:
    return [
        f"A Llama of {size:,} parameters, {steps} steps of {BATCH} x {CONTEXT} tokens, float32, seed 0, one run per rate. "
        f"Text: {source}.",
        "Peak: weights, gradients that live at once and optimizer state, bytes per parameter, activations apart.",
        "Better of two learning rates; the other's loss beside it. Cosine schedule, constant for schedule_free; "
        "global norm clipped to 1, per tensor for lomo. Default fields (low-rank ones: rank 64 of 128).",
        "",
        "| optimizer | state bytes/parameter, counted | by formula | peak bytes/parameter | learning rate | "
        "validation loss, nats | other rate: loss |",
        "|---|---|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    prepare()
    main()
