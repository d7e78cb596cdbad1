"""Tasks through lm-eval: the local ones on questions of our own, others by name from the hub."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.job import Job
from tasks.evaluate import CODE, LOCAL, Evaluate
from tasks.evaluate.answers import METRICS, Metric, measures, told
from tasks.evaluate.questions import Written, ending, questions, spread, stopping, written
from tasks.evaluate.sandbox import Verdict
from tasks.models.load import quiet
from tasks.models.soft_prompt import free_positions, virtual_tokens

PROGRAM = 128
"""Tokens below which few programs have their end."""


@dataclass(frozen=True)
class Result:
    """One metric of one task.

    Attributes:
        name: the task's and the metric's, e.g. "chats/rouge_l".
        value: mean over the examples; None where there was none.
        note: over what it was taken, with the standard error where lm-eval gives one; or why there is no value.
        rises: whether higher is better.
    """

    name: str
    value: float | None
    note: str
    rises: bool = True


def prepare(params: Evaluate) -> None:
    """Get every task of `evaluate.tasks` now: what training leads to could not be judged by one that can't be had.

    Raises:
        UserError: as `run`.
    """
    for name in dict.fromkeys(params.tasks):
        if name not in LOCAL:
            _loaded(name)


def run(model: Any, tokenizer: Any, data: Path, params: Evaluate, job: Job) -> list[Result]:
    """Every task of `evaluate.tasks`, answered greedily by `model`.

    Raises:
        UserError: a task that lm-eval doesn't know, can't get, or that runs code outside the sandbox.
    """
    results: list[Result] = []
    for name in dict.fromkeys(params.tasks):
        if name in LOCAL:
            results += _local(name, model, tokenizer, data, params, job)
        else:
            results += _hub(name, model, tokenizer, params, job)
    return results


def _local(name: str, model: Any, tokenizer: Any, data: Path, params: Evaluate, job: Job) -> list[Result]:
    if not tokenizer.chat_template:
        return _nothing(name, "the tokenizer has no chat template to ask in")
    made = written(questions(name, data), tokenizer)
    limit = free_positions(model)
    tokens = min(params.task_tokens, limit // 2)
    fitting = [one for one in made if one.tokens + tokens <= limit]
    if not fitting:
        return _nothing(name, f"{len(made)} held-out examples, of which none fits the model's context")
    chosen = spread(fitting, params.task_examples)
    if name == CODE and tokens < PROGRAM:
        job.say(f"evaluate.task_tokens: {tokens} tokens cut most programs of the task {CODE} short; it wants 256")
    verdicts: list[Verdict] = []
    found = _evaluated(
        _task(name, chosen, tokenizer, tokens, measures(name, verdicts)),
        _harness(model, tokenizer, params, job, add_bos_token=False),
    )
    note = f"{len(chosen)} of {len(made)} held-out examples"
    if len(made) > len(fitting):
        note += f" ({len(made) - len(fitting)} too long for the model)"
    note += f", {tokens} tokens at most" + (", which cut programs short" if name == CODE and tokens < PROGRAM else "")
    if ends := told(verdicts):
        note += f": {ends}"
    return _results(name, found["results"][name], dict.fromkeys(METRICS[name], True), note)


def _nothing(name: str, why: str) -> list[Result]:
    return [Result(f"{name}/{metric}", None, why) for metric in METRICS[name]]


def _task(
    name: str, chosen: list[Written], tokenizer: Any, tokens: int, measured: Mapping[str, Metric]
) -> dict[str, Any]:
    """A local task as lm-eval takes it, by name."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    rows = [
        {"prompt": w.prompt, "answer": w.question.answer, "held": w.question.tests or w.question.answer} for w in chosen
    ]

    def score(row: Mapping[str, str], said: list[str]) -> dict[str, float]:
        return {metric: measure(said[0], row["held"]) for metric, measure in measured.items()}

    config = {
        "task": name,
        "custom_dataset": lambda: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "process_results": score,
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in measured],
        "generation_kwargs": {
            "until": stopping(tokenizer),
            "max_gen_toks": tokens,
            "do_sample": False,
            "eos_token_id": ending(tokenizer),
        },
        "num_fewshot": 0,
    }
    with _hushed():
        return {name: ConfigurableTask(config=config)}


def _loaded(name: str) -> dict[str, Any]:
    """A task of lm-eval with its data."""
    ours = f"tasks without a network: {', '.join(LOCAL)}; those of lm-eval: `lm-eval ls tasks`"
    try:
        with _hushed():
            loaded: dict[str, Any] = _catalogue().load([name])
    except (KeyError, ValueError, OSError, RuntimeError, ImportError) as error:  # whatever it is made of
        said = " ".join(str(error).split())[:200]
        raise UserError(f"evaluate.tasks: '{name}' is no task, or its data can't be had: {said}", ours) from None
    for task in loaded["tasks"].values():
        if getattr(task, "UNSAFE_CODE", False):
            raise UserError(f"evaluate.tasks: '{name}' runs a model's code outside the sandbox", "take `code` instead")
    return loaded


def _hub(name: str, model: Any, tokenizer: Any, params: Evaluate, job: Job) -> list[Result]:
    loaded = _loaded(name)
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)
    lm = _harness(model, tokenizer, params, job)
    chat = bool(tokenizer.chat_template)
    found = _evaluated(loaded, lm, limit=params.task_examples, apply_chat_template=chat, fewshot_as_multiturn=chat)
    whole = {name: found["results"][name]} if name in found["results"] else found["results"]
    note = f"{params.task_examples} examples at most of each part" + (", asked in the chat template" if chat else "")
    return [
        r for part, entry in whole.items() for r in _results(part, entry, found["higher_is_better"].get(part, {}), note)
    ]


@cache
def _catalogue() -> Any:
    """Every task of lm-eval by name; it reads fourteen thousand files."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _evaluated(tasks: Mapping[str, Any], lm: Any, **options: Any) -> dict[str, Any]:
    from lm_eval import evaluate

    given = tasks if "tasks" in tasks else {"tasks": tasks, "groups": {}}
    with _hushed(), quiet():
        made: dict[str, Any] = evaluate(lm, given, log_samples=False, bootstrap_iters=100, **options)
    return made


def _results(task: str, entry: Mapping[str, Any], rises: Mapping[str, bool | None], note: str) -> list[Result]:
    """Of lm-eval's entry, e.g. {"acc,none": 0.5, "acc_stderr,none": 0.1}, every figure with its standard error."""
    results = []
    for key, value in entry.items():
        metric, comma, way = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = entry.get(f"{metric}_stderr,{way}")
        spread = f"; standard error {error:.3g}" if isinstance(error, float) and math.isfinite(error) else ""
        name = f"{task}/{metric}" if way == "none" else f"{task}/{metric}/{way}"
        results.append(
            Result(name, float(value), f"{note}{spread}; lm-eval {version('lm-eval')}", rises.get(metric) is not False)
        )
    return results


def _harness(model: Any, tokenizer: Any, params: Evaluate, job: Job, **options: Any) -> Any:
    """`model` as lm-eval asks it; between two batches of generation the budget may stop it."""
    with _hushed():
        from lm_eval.models.huggingface import HFLM

        class Watched(HFLM):  # type: ignore[misc]
            """Generates like its base."""

            done = 0

            def _model_generate(self, *args: Any, **kwargs: Any) -> Any:
                if self.done:
                    job.stop_if_over_budget(f"batch {self.done} of a task")
                self.done += 1
                return super()._model_generate(*args, **kwargs)

        # a recurrence that is told of no padding would read it; virtual tokens are pushed out of a window by it
        windowed = virtual_tokens(model) and getattr(model.config, "sliding_window", None)
        size = 1 if windowed or model.config.model_type == "rwkv" else params.batch_size
        return Watched(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=size, **options)


@contextmanager
def _hushed() -> Iterator[None]:
    """Without lm-eval's bars and notices."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with redirect_stderr(io.StringIO()):
        yield
