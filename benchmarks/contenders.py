"""The training loops that `benchmarks/pretrain.py` compares: one class of them each, all given the same weights and tokens.

A contender trains `steps` steps and returns the loss and the seconds of each. What they have in common: AdamW at a constant
rate, betas 0.9 and 0.95, weight decay 0.1 of matrices, gradients clipped to 1, bf16 autocast where it is native.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
Tokens = Any
"""Ids (steps, batch, length + 1)."""
Rows = list[tuple[float, float]]
"""Loss and seconds of every step."""


def leanlm(config: dict[str, Any], tokens: Tokens, precision: str, compiled: bool = False) -> Rows:
    """This project's loop, as the pretrain stage runs it."""
    import csv

    from tasks.core.job import Job
    from tasks.models.load import new_model
    from tasks.optimizers.adamw import AdamW
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    settings = Settings(
        steps=len(tokens),
        learning_rate=RATE,
        schedule=Schedule(shape="constant", warmup_steps=0),
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        precision=precision,
        checkpoint_every=10**9,
        seed=0,
        optimizer=AdamW(beta1=BETAS[0], beta2=BETAS[1]),
        compile=compiled,
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Job("benchmark", Path(folder))
        Loop(new_model(config, 0), lambda step: (tokens[step, :, :-1], tokens[step, :, 1:]), settings, job).run()
        with job.history.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    size = tokens.shape[1] * (tokens.shape[2] - 1)
    return [(float(row["loss"]), size / float(row["tokens_per_second"])) for row in rows]


def leanlm_compiled(config: dict[str, Any], tokens: Tokens, precision: str) -> Rows:
    """The same with `pretrain.compile: on`."""
    return leanlm(config, tokens, precision, compiled=True)


def hf_trainer(config: dict[str, Any], tokens: Tokens, precision: str) -> Rows:
    """`transformers.Trainer` with fused AdamW and its defaults otherwise."""
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainerCallback

    from tasks.models.load import new_model

    flat = tokens.flatten(0, 1)
    data = [{"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]} for row in flat]
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(data)

    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(folder, tokens, precision)
        trainer = InOrder(model=new_model(config, 0).train(), args=arguments, train_dataset=data, callbacks=[Clock()])
        trainer.train()
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return list(zip(losses, seconds, strict=True))


def _arguments(folder: str, tokens: Tokens, precision: str) -> Any:
    """Of transformers' trainer."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=folder,
        max_steps=len(tokens),
        per_device_train_batch_size=tokens.shape[1],
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        weight_decay=DECAY,
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=_on_cpu(),
    )


def nanogpt(config: dict[str, Any], tokens: Tokens, precision: str, compiled: bool = False) -> Rows:
    """A plain loop in the manner of nanoGPT's train.py, around transformers' model: all logits, one fused AdamW."""
    import torch

    from tasks.models.load import new_model

    model = new_model(config, 0).train()
    call = torch.compile(model) if compiled else model

    def loss(inputs: Any, labels: Any) -> Any:
        logits = call(input_ids=inputs, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())

    return _plain(model, loss, tokens, precision)


def nanogpt_compiled(config: dict[str, Any], tokens: Tokens, precision: str) -> Rows:
    """The same with the whole model compiled, nanoGPT's default."""
    return nanogpt(config, tokens, precision, compiled=True)


def litgpt(config: dict[str, Any], tokens: Tokens, precision: str) -> Rows:
    """The model and the chunked cross-entropy of `litgpt/pretrain.py`; weights converted."""
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import chunked_cross_entropy

    from tasks.models.load import new_model

    source = new_model(config, 0)
    shape = Config(
        block_size=config["max_position_embeddings"],
        vocab_size=config["vocab_size"],
        padded_vocab_size=config["vocab_size"],
        n_layer=config["num_hidden_layers"],
        n_head=config["num_attention_heads"],
        n_query_groups=config["num_key_value_heads"],
        n_embd=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=source.config.rms_norm_eps,
        mlp_class_name="LLaMAMLP",
        rope_base=10000,
    )
    model, converted = GPT(shape), dict[str, Any]()
    copy_weights_hf_llama(shape, {}, converted, {k: v.clone() for k, v in source.state_dict().items()})
    model.load_state_dict(converted)
    model.lm_head.weight = model.transformer.wte.weight
    return _plain(model.train(), lambda inputs, labels: chunked_cross_entropy(model(inputs), labels), tokens, precision)


def _plain(model: Any, loss_of: Callable[[Any, Any], Any], tokens: Tokens, precision: str) -> Rows:
    import torch

    from tasks.models.device import autocast

    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)
    rows: Rows = []
    for batch in tokens:
        began = time.perf_counter()
        with autocast(precision):
            loss = loss_of(batch[:, :-1], batch[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rows.append((loss.item(), time.perf_counter() - began))
    return rows


def _on_cpu() -> bool:
    from tasks.models.device import best_device

    return best_device() == "cpu"


CONTENDERS: dict[str, Callable[[dict[str, Any], Tokens, str], Rows]] = {
    "leanlm": leanlm,
    "leanlm, compiled": leanlm_compiled,
    "HF Trainer": hf_trainer,
    "nanoGPT's loop, eager": nanogpt,
    "nanoGPT's loop, compiled": nanogpt_compiled,
    "litgpt": litgpt,
}
"""Name -> loop. litgpt is asked for only where it can be imported."""
