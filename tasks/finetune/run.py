"""Base model and chat messages in; adapter and merged model out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, counted, measured
from tasks.evaluate import Evaluate
from tasks.evaluate.judge import judge
from tasks.finetune import Finetune, chats
from tasks.models.device import autocast, computable, resolve_precision
from tasks.models.load import (
    cast,
    check_context,
    copy_model,
    count_parameters,
    load_model,
    load_tokenizer,
    save_model,
    weight_bytes,
)
from tasks.training.loop import Loop
from tasks.training.loss import next_token_loss
from tasks.training.settings import Settings


def run(params: Finetune, *, seed: int, evaluate: Evaluate, data: Path, pretrain: Path, out: Path, job: Job) -> Metrics:
    """Adapt the base model and write the merged model at the root of `out`, the adapter (if any) in `out/adapter`.

    Raises:
        UserError: no chat fits, no chat template, or the technique doesn't fit the model.
    """
    tokenizer = load_tokenizer(pretrain)
    if params.steps:
        metrics = _train(params, seed, data, pretrain, tokenizer, out, job)
    else:
        copy_model(pretrain, out)
        metrics = {"trainable_parameters": counted(0), "parameters": counted(count_parameters(load_model(out)))}
    metrics |= judge(out, data, evaluate, job)
    return {"delivery_bytes": counted(weight_bytes(out), "weights")} | metrics


def _train(params: Finetune, seed: int, data: Path, pretrain: Path, tokenizer: Any, out: Path, job: Job) -> Metrics:
    import torch

    train, held = _chats(params, data, tokenizer)
    check_context("finetune.context_length", params.context_length, pretrain)
    base = load_model(pretrain)
    kept = base.dtype
    if params.method == "full":
        base.float()
    computable(base)
    size, precision = count_parameters(base), resolve_precision(params.precision)
    torch.manual_seed(seed)
    model = _apply(params, base)
    names = ("steps", "learning_rate", "schedule", "weight_decay", "max_grad_norm", "checkpoint_every")
    settings = Settings(**{name: getattr(params, name) for name in names}, precision=precision, seed=seed)
    before = _validation_loss(model, held, params.batch_size, precision)
    loop = Loop(
        model,
        lambda step: chats.batch(train.examples, step, params.batch_size, seed, base.device),
        settings,
        job,
    )
    metrics = loop.run()
    if covered := sum(m.base_layer.weight.numel() for m in model.modules() if hasattr(m, "lora_A")):
        trained = metrics["trainable_parameters"]
        metrics["trainable_parameters"] = replace(trained, note=f"beside {covered:,} of {size:,} parameters, frozen")
    metrics["parameters"] = counted(size)
    metrics["chats_dropped"] = counted(
        train.too_long + train.without_answer + train.refused,
        f"{train.too_long} too long, {train.without_answer} without an answer, {train.refused} refused by the template",
    )
    after = _validation_loss(model, held, params.batch_size, precision)
    if before is not None and after is not None:
        note = f"answers of {len(held.examples)} held-out chats"
        metrics |= {"validation_loss_before": measured(before, note), "validation_loss": measured(after, note)}
    return metrics | _save(model, kept, tokenizer, out)


def _chats(params: Finetune, data: Path, tokenizer: Any) -> tuple[chats.Chats, chats.Chats]:
    """Those to train on and those to validate with."""
    train, held = (
        chats.read(data / "instructions" / f"{split}.jsonl", tokenizer, params.context_length)
        for split in ("train", "validation")
    )
    if not train.examples:
        raise UserError(
            f"finetune: no chat to train on ({train.too_long} longer than finetune.context_length "
            f"{params.context_length} tokens, {train.without_answer} without an answer, {train.refused} refused by the chat template)",
            "raise finetune.context_length, or give data.source records with 'messages' or Python files",
        )
    return train, held


def _validation_loss(model: Any, held: chats.Chats, batch_size: int, precision: str) -> float | None:
    """Mean loss on the answers of held-out chats; None where there are none."""
    import torch

    if not held.examples:
        return None
    model.eval()
    losses = []
    with torch.inference_mode(), autocast(precision):
        for at in range(0, len(held.examples), batch_size):
            part = held.examples[at : at + batch_size]
            losses += [float(next_token_loss(model, *chats.tensors(part, model.device)))] * len(part)
    return sum(losses) / len(losses)


def _apply(params: Finetune, base: Any) -> Any:
    import torch

    try:
        return params.technique.apply(base)
    except ValueError as error:
        layers = {name.rpartition(".")[2] for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
        raise UserError(
            f"finetune.{params.method} doesn't fit this model: {error}",
            f"its linear layers: {', '.join(sorted(layers))}",
        ) from None


def _save(model: Any, dtype: Any, tokenizer: Any, out: Path) -> Metrics:
    if not hasattr(model, "merge_and_unload"):
        save_model(cast(model, dtype), tokenizer, out)
        return {}
    for config in model.peft_config.values():
        if isinstance(config.target_modules, set):  # written in an order that differs from process to process
            config.target_modules = sorted(config.target_modules)
    model.save_pretrained(out / "adapter")
    save_model(cast(model.merge_and_unload(), dtype), tokenizer, out)
    size = weight_bytes(out / "adapter")
    return {"adapter_bytes": counted(size), "delivery_bytes": counted(size, "adapter alone")}
