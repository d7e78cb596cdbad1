"""The trainers that `benchmarks/finetune.py` compares: LoRA of the same weights on the same chats, a function each.

A tuner takes `batch` chats a step in the order given and returns loss and seconds of each step. What they have in common:
peft's LoRA (r 8, alpha 16, all linear layers) from the same seed, AdamW at a constant rate, no weight decay, gradients
clipped to 1, float32 unless the machine multiplies bfloat16 natively, the mean over the answers' tokens of a step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.models.chat import IGNORED, Example

RATE, CLIP, SEED = 2e-4, 1.0, 0
Rows = list[tuple[float, float]]
"""Loss and seconds of every step."""


@dataclass(frozen=True)
class Task:
    """What every tuner is given.

    Attributes:
        base: folder of the model.
        examples: the chats, `batch` a step.
        batch: chats per step.
        precision: fp32 or bf16.
    """

    base: Path
    examples: list[Example]
    batch: int
    precision: str

    @property
    def steps(self) -> int:
        """How many there are chats for."""
        return len(self.examples) // self.batch


def leanlm(task: Task) -> Rows:
    """This project's finetune stage: its model, its rows of packed chats, its loop."""
    import csv

    from tasks.core.job import Job
    from tasks.finetune.batches import batch
    from tasks.models.packing import Dealer
    from tasks.optimizers.adamw import AdamW
    from tasks.training.loop import Loop
    from tasks.training.schedule import Schedule
    from tasks.training.settings import Settings

    tuning = _lora(task, ours=True)
    settings = Settings(
        steps=task.steps,
        learning_rate=RATE,
        schedule=Schedule(shape="constant", warmup_steps=0),
        weight_decay=0.0,
        max_grad_norm=CLIP,
        precision=task.precision,
        checkpoint_every=10**9,
        seed=SEED,
        optimizer=AdamW(beta2=0.999),
        packed=True,
    )
    dealt = Dealer(tuple(len(example.labels) for example in task.examples), task.batch, SEED, packing=True)

    def made(step: int) -> Any:
        rows = dealt.rows(list(range(step * task.batch, (step + 1) * task.batch)))
        return batch(task.examples, rows, tuning.model.device)

    with tempfile.TemporaryDirectory() as folder:
        job = Job("benchmark", Path(folder))
        Loop(tuning.model, made, settings, job, hooks=tuning).run()
        with job.history.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    ends = [float(row["seconds"]) for row in rows]
    return [(float(row["loss"]), end - start) for row, start, end in zip(rows, [0.0, *ends[:-1]], ends, strict=True)]


def hf_trainer(task: Task) -> Rows:
    """`transformers.Trainer` around a `peft` model: batches padded to their longest chat, fused AdamW."""
    from torch.utils.data import SequentialSampler
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    from tasks.models.load import load_tokenizer

    data = [{"input_ids": e.ids, "attention_mask": [1] * len(e.ids), "labels": _own(e)} for e in task.examples]

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(data)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(output_dir=folder, **_arguments(task))
        tokenizer = load_tokenizer(task.base)
        clock = _clock()
        trainer = InOrder(
            model=_lora(task),
            args=arguments,
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=IGNORED),
            callbacks=[clock],
        )
        trainer.train()
    return _rows(trainer, clock)


def trl(task: Task, **more: Any) -> Rows:
    """`trl.SFTTrainer` as it is, on chats that are tokens already."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import SFTConfig, SFTTrainer

    from tasks.models.load import load_tokenizer

    data = Dataset.from_list([{"input_ids": e.ids, "labels": _own(e)} for e in task.examples])

    class InOrder(SFTTrainer):  # type: ignore[misc]  # trl is not followed
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    with tempfile.TemporaryDirectory() as folder:
        # its own default computes every block twice to save memory: slower, and no peer for speed
        chosen = _arguments(task) | {"gradient_checkpointing": False, "max_length": 2048} | more
        clock = _clock()
        trainer = InOrder(
            model=_lora(task),
            args=SFTConfig(output_dir=folder, **chosen),
            train_dataset=data,
            processing_class=load_tokenizer(task.base),
            callbacks=[clock],
        )
        trainer.train()
    return _rows(trainer, clock)


def trl_padding_free(task: Task) -> Rows:
    """The same with its `padding_free`: a step's chats in one row, kept apart by a mask."""
    return trl(task, padding_free=True, max_length=None)


def _own(example: Example) -> list[int]:
    """Labels as transformers shifts them."""
    return [IGNORED, *example.labels]


def _lora(task: Task, ours: bool = False) -> Any:
    """The adapted model, the same for all: a `Tuning` for this project's loop, else peft's."""
    import torch

    from tasks.finetune.lora import Lora
    from tasks.finetune.technique import Plan
    from tasks.optimizers.adamw import AdamW

    technique = Lora(r=8, lora_alpha=16)
    base = technique.load(task.base)
    torch.manual_seed(SEED)
    tuning = technique.begin(base, Plan(task.base, task.base, task.steps, SEED, AdamW()))
    tuning.model.train()
    return tuning if ours else tuning.model


def _arguments(task: Task) -> dict[str, Any]:
    return {
        "max_steps": task.steps,
        "per_device_train_batch_size": task.batch,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": CLIP,
        "optim": "adamw_torch_fused",
        "bf16": task.precision == "bf16",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": _on_cpu(),
        "dataloader_pin_memory": False,
        "seed": SEED,
    }


def _on_cpu() -> bool:
    from tasks.models.device import best_device

    return best_device() == "cpu"


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Seconds of every step."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    return Clock()


def _rows(trainer: Any, clock: Any) -> Rows:
    losses = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    return list(zip(losses, clock.seconds, strict=True))


TUNERS: dict[str, Callable[[Task], Rows]] = {
    "leanlm": leanlm,
    "HF Trainer + peft": hf_trainer,
    "trl.SFTTrainer": trl,
    "trl.SFTTrainer, padding-free": trl_padding_free,
}
"""Name -> trainer. trl's are asked for only where it can be imported."""
