"""The training itself: the same for one process, and for each of several workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, measured
from tasks.models.adapter import refuse_unmerged
from tasks.models.device import autocast, resolve_precision
from tasks.models.load import (
    count_parameters,
    has_weights,
    load_model,
    load_tokenizer,
    new_model,
    read_config,
    weight_shapes,
)
from tasks.pretrain import Pretrain
from tasks.pretrain.batches import Batches, Shard
from tasks.training.kernels.compiled import check_compiler, has_compiler, pays
from tasks.training.loop import Loop
from tasks.training.settings import Settings
from tasks.training.world import World

VALIDATION_SEQUENCES = 64


def start(params: Pretrain, seed: int, tokenizer: Any, design: Path, init: Path) -> tuple[Any, Any]:
    """The model to train in float32, and the dtype it is kept in.

    Raises:
        UserError: `init` isn't the model of the blueprint, or has no weights.
    """
    import torch

    blueprint = read_config(design)
    refuse_unmerged(init, "pretrain.init")
    if not has_weights(init):
        if init.is_file() or (init / "config.json").exists():
            raise UserError(
                f"pretrain.init '{init}': a model without weights (*.safetensors)",
                "name the model's folder; pickled and GGUF weights are not read: convert them first",
            )
        return new_model(blueprint, seed), torch.float32
    if weight_shapes(read_config(init)) != weight_shapes(blueprint):
        raise UserError(
            f"pretrain.init '{init}' holds weights of another shape than the blueprint",
            "set design.method to existing, or pretrain.init to data/none",
        )
    if (init / "tokenizer.json").exists() and load_tokenizer(init).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"data.tokenizer is not the tokenizer of pretrain.init '{init}': its weights would see foreign ids",
            "set data.tokenizer.method to pretrained",
        )
    model = load_model(init)
    dtype = model.dtype
    return (model.float() if params.steps else model), dtype


def train(
    model: Any,
    params: Pretrain,
    seed: int,
    data: Path,
    teacher: Path | None,
    job: Job,
    world: World | None = None,
) -> Metrics:
    """Train every weight of `model`; all workers of `world` call this with the same model."""
    precision = resolve_precision(params.precision)
    shard = Shard(data, "train", params.context_length, model.device)
    held = Held(Shard(data, "validation", params.context_length, model.device), params.batch_size, precision)
    model.requires_grad_(True)
    loop = Loop(
        model,
        Batches(shard, params.sampling, params.batch_size, params.steps, seed).batch,
        settings_of(params, seed, precision, teacher, compiling(params, model, precision, job)),
        job,
        lambda: held.loss(loop.module, loop.world),
        world,
    )
    metrics = loop.run()
    return metrics | {"validation_loss": measured(held.loss(loop.module, loop.world), f"{held.count} sequences")}


class Held:
    """The held-out sequences that losses are watched on.

    Args:
        shard: of the validation split.
        batch_size: sequences per forward pass.
        precision: of the forward pass.
    """

    def __init__(self, shard: Shard, batch_size: int, precision: str) -> None:
        self.shard, self.precision = shard, precision
        self.count = min(shard.sequences, VALIDATION_SEQUENCES)
        self.parts = [range(at, min(at + batch_size, self.count)) for at in range(0, self.count, batch_size)]

    def loss(self, module: Any, world: World) -> float:
        """Mean loss in nats; workers take turns, and make as many passes each, since sharded ones make them together."""
        import torch

        module.eval()
        summed = 0.0
        with torch.no_grad(), autocast(self.precision):
            for first in range(0, len(self.parts), world.size):
                number = first + world.rank
                part = self.parts[number % len(self.parts)]
                loss, _ = module(*self.shard.take(part), {})
                summed += float(loss) * len(part) * (number < len(self.parts))
        return world.total({"loss": summed})["loss"] / self.count


SAME = (
    "steps",
    "learning_rate",
    "schedule",
    "weight_decay",
    "max_grad_norm",
    "checkpoint_every",
    "keep_checkpoints",
    "eval_every",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "spikes",
)
"""Parameters the loop takes as they are."""


def compiling(params: Pretrain, model: Any, precision: str, job: Job) -> bool:
    """Whether the model's blocks are compiled.

    Raises:
        UserError: they are to be, and there is no compiler.
    """
    if params.compile == "on":
        check_compiler("pretrain.compile")
    if params.compile != "auto":
        return params.compile == "on"
    if params.parallel.workers > 1 or params.gradient_checkpointing == "selective":
        return False
    flops = 6.0 * count_parameters(model) * params.steps * params.batch_size * params.context_length
    dtype = "float32" if precision == "fp32" else "bfloat16"
    return has_compiler() and pays(model.config.model_type, flops, job.gemm_flops_per_second, dtype)


def settings_of(
    params: Pretrain, seed: int, precision: str, teacher: Path | None = None, compiled: bool = False
) -> Settings:
    """What the loop is told of `params`."""
    return Settings(
        **{name: getattr(params, name) for name in SAME},
        compile=compiled,
        precision=precision,
        seed=seed,
        optimizer=params.optimizer.technique,
        objective=params.objective.technique,
        teacher=teacher,
    )
