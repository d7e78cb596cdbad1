"""trl's trainers as what they compute: their losses, their sampling, their metrics. The loop that trains is our own.

A trainer's own loop would know nothing of what techniques do between steps, of the budget, or of checkpoints without
pickle; and every optimizer of the registry works in ours.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tasks.finetune.lesson import Given

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

ASKED = {"prompt": [{"role": "user", "content": "One and one?"}]}
SAID, REJECTED = ([{"role": "assistant", "content": text}] for text in ("Two.", "Three."))
EXAMPLE = ASKED | {"chosen": SAID, "rejected": REJECTED}
"""A trainer wants a data set; the loop hands it batches itself, so this row is all there is in it."""


def built(kind: Any, config: Any, model: Any, given: Given, more: dict[str, Any], **fields: Any) -> Any:
    """A trainer of trl that is asked for losses alone.

    Args:
        kind: its class.
        config: the class of its arguments.
        model: what is trained; it is as before afterwards, but for a `forward` that can leave logits out.
        given: to the objective.
        more: further arguments of `kind`; a `train_dataset` row in the place of `EXAMPLE`.
        fields: of `config`, beside those that are the same for all.

    Raises:
        ValueError: trl can't train this model; says why.
    """
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback

    disable_progress_bars()
    more = {"train_dataset": EXAMPLE, "processing_class": copy.deepcopy(given.tokenizer)} | more
    more["train_dataset"] = Dataset.from_list([more["train_dataset"]])
    with untouched(model):
        trainer = kind(model=model, args=config(**_common(given) | fields), **more)
    _follow(model)
    trainer.remove_callback(PrinterCallback)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def _common(given: Given) -> dict[str, Any]:
    """What every trainer is told: compute, and nothing of what a loop does."""
    from tasks.models.device import best_device

    return {
        "output_dir": str(given.job.work / "trl"),
        "report_to": "none",
        "use_cpu": best_device() == "cpu",
        "bf16": given.precision == "bf16",
        "fp16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "max_steps": 1,
        "seed": given.seed,
        "disable_dropout": False,  # whoever wants none sets none
    }


def _follow(model: Any) -> None:
    """Peft's adapter that keeps the base's `forward` from before (LLaMA-Adapter) calls the one trl has put there."""
    if hasattr(model, "get_base_model") and "forward" in vars(model.base_model):
        model.base_model.forward = model.get_base_model().forward


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Whatever trl writes into the model's configs inside is taken back: they are saved with the model."""
    places = [(model.config, "use_cache"), (model.config, "pad_token_id"), (model.generation_config, "pad_token_id")]
    kept = [(place, name, getattr(place, name, None)) for place, name in places]
    try:
        yield
    finally:
        for place, name, value in kept:
            setattr(place, name, value)


def shown(trainer: Any, columns: tuple[str, ...]) -> dict[str, float]:
    """What the trainer noted since it was last asked, by column; not a number where it noted nothing."""
    values: dict[str, float] = {"loss": 0.0}
    trainer.log(values)
    trainer.state.log_history.clear()
    found = {name: values.get(name, values.get(f"eval_{name}")) for name in columns}
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}
