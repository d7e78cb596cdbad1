"""The teacher of a pretraining run: whether there is one the run can learn from, and how like it the model became."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.core.measure import Metrics, measured
from tasks.evaluate import Evaluate
from tasks.evaluate.loyalty import compare
from tasks.evaluate.text import read_texts
from tasks.models import positions
from tasks.models.load import has_weights, load_model, load_tokenizer, read_config
from tasks.pretrain import Pretrain


def chosen_teacher(params: Pretrain, evaluate: Evaluate, tokenizer: Any, teacher: Path | None) -> Path | None:
    """The folder of `pretrain.teacher`, where the objective learns from one.

    Raises:
        UserError: distillation without a teacher, a teacher nobody learns from, one of another vocabulary, or a context
            longer than its positions.
    """
    there = teacher is not None and (has_weights(teacher) or (teacher / "config.json").exists())
    if params.objective.method != "distillation":
        if there and params.steps:
            raise UserError(
                f"pretrain.teacher '{teacher}': objective {params.objective.method} learns from no teacher",
                "set pretrain.objective.method to distillation, or pretrain.teacher to data/none",
            )
        return None
    if not params.steps:
        return None
    if teacher is None or not has_weights(teacher):
        raise UserError(
            f"pretrain.teacher '{teacher or 'data/none'}': no model with weights (*.safetensors), and distillation learns "
            "from one",
            "name a model's folder, or set pretrain.objective.method to next_token",
        )
    if load_tokenizer(teacher).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"data.tokenizer is not the tokenizer of pretrain.teacher '{teacher}': it would speak of foreign ids",
            "take a teacher with the same tokenizer, or pretrain one on the same data first",
        )
    limit = positions(read_config(teacher))
    asked = {"pretrain.context_length": params.context_length, "evaluate.context_length": evaluate.context_length}
    for name, tokens in asked.items():
        if limit and tokens > limit:
            raise UserError(f"{name}: found {tokens}; pretrain.teacher '{teacher}' has {limit} positions", "lower it")
    return teacher


def loyalty(out: Path, data: Path, teacher: Path, evaluate: Evaluate, job: Job) -> Metrics:
    """How like its teacher the model of `out` answers on held-out text."""
    model, tokenizer = load_model(out), load_tokenizer(out)
    found = compare(load_model(teacher), model, tokenizer, read_texts(data), evaluate, job)
    return {
        "label_loyalty/teacher": measured(found.label, found.note),
        "probability_loyalty/teacher": measured(found.probability, found.note),
        "fidelity_kl_nats/teacher": measured(found.kl_nats, found.note),
    }
