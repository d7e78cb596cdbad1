"""What can be turned down to make a lifecycle cheaper, from mild to harsh."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tasks import accounting
from tasks.accounting.memory import CHECKPOINTING
from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.design.family import Family
from tasks.finetune.conflicts import conflicts as tuning
from tasks.ledger.predict.subject import Subject
from tasks.optimizers import Optimizer
from tasks.params import Params, override
from tasks.pretrain.conflicts import conflicts

OWNERS = {"evaluate": "data"}
"""Block -> the first stage that depends on it, where that isn't the stage of the same name."""

LEAST = {
    "evaluate.max_bytes": 1000,
    "evaluate.batch_size": 1,
    "evaluate.sample_tokens": 1,
    "evaluate.task_examples": 1,
    "deploy_profile.repeats": 1,
    "deploy_profile.max_new_tokens": 2,
    "pretrain.steps": 1,
    "pretrain.batch_size": 1,
    "pretrain.context_length": 16,
    "finetune.steps": 1,
    "finetune.batch_size": 1,
    "finetune.context_length": 64,
    "data.max_documents": 3,
    "data.max_instructions": 1,
    "data.tokenizer.train.max_bytes": 10_000,
}
"""Whole numbers that can be lowered, and how far; below, a stage has nothing sensible left to do."""

FREE = ("evaluate", "deploy_profile")
"""Blocks that change how a model is measured, never the model."""

SAME_MODEL = ("pretrain.gradient_accumulation_steps", "pretrain.gradient_checkpointing")
"""Parameters that change how the same gradient is computed."""

MEMORY_ALONE = (*SAME_MODEL, "pretrain.optimizer.method")
"""Knobs that save memory and nothing else."""

LEANER = {"adafactor": 0.7, "adamw_8bit": 0.6, "lomo": 0.3}
"""Optimizers with less state than AdamW -> order of memory, where they are registered."""


@dataclass(frozen=True)
class Setting:
    """New values for some parameters; `share`: what is left of the knob's amount, in (0, 1)."""

    assignments: Mapping[str, Any]
    share: float

    @property
    def command(self) -> str:
        """The command that makes the change."""
        words = (f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in self.assignments.items())
        return "leanlm run " + " ".join(f"-S {shlex.quote(word)}" for word in words)

    @property
    def free(self) -> bool:
        """Whether the model stays the same."""
        return all(name.partition(".")[0] in FREE or name in SAME_MODEL for name in self.assignments)

    def applied(self, params: Params) -> Params | None:
        """`params` with the new values; None where they aren't allowed together."""
        try:
            changed = validate(Params, override(params.model_dump(mode="json"), self.assignments))
        except UserError:
            return None
        wrong = [*(conflicts(changed.pretrain) if changed.pretrain.steps else ())]
        wrong += tuning(changed.finetune) if changed.finetune.steps else ()
        return None if wrong else changed


@dataclass(frozen=True, eq=False)
class Knob:
    """One thing to turn down: its settings from mild to harsh.

    Attributes:
        name: of the parameter that is turned; two of them for a knob that keeps the number of tokens.
        owner: the first stage that runs again.
    """

    name: str
    owner: str
    settings: tuple[Setting, ...]

    @property
    def single(self) -> bool:
        """Whether it turns one parameter alone."""
        return len(self.settings[-1].assignments) == 1

    def at(self, share: float) -> Setting:
        """The mildest setting that leaves at most `share`, else the harshest."""
        return next((setting for setting in self.settings if setting.share <= share), self.settings[-1])


def joined(settings: Iterable[Setting]) -> Setting:
    """Several settings at once; what is left of the least."""
    found = list(settings)
    assignments = {name: value for setting in found for name, value in setting.assignments.items()}
    parts, batch = SAME_MODEL[0], assignments.get("pretrain.batch_size")
    if assignments.get("pretrain.optimizer.method") == "lomo":  # it updates in the backward pass: nothing adds up
        assignments.pop(parts, None)
    if parts in assignments and batch is not None:
        assignments[parts] = min(assignments[parts], batch)
    return Setting(assignments, min(setting.share for setting in found))


def knobs(params: Params, about: Subject) -> list[Knob]:
    """Everything that can be turned down from `params`, which is about `about`."""
    values = {name: _value(params, name) for name in LEAST}
    if values["data.max_documents"] is None:
        values["data.max_documents"] = about.documents
    if not params.evaluate.tasks:
        del values["evaluate.task_examples"]
    if params.data.tokenizer.method != "train":
        del values["data.tokenizer.train.max_bytes"]
    else:
        values["data.tokenizer.train.max_bytes"] = min(values["data.tokenizer.train.max_bytes"], about.raw_bytes)
    found = [_amount(name, value) for name, value in values.items()]
    found += [_same_tokens(stage, params) for stage in ("pretrain", "finetune")]
    found += _leaner_steps(params)
    found += [_smaller_design(params, about), *_fewer_engines(params)]
    if params.finetune.method == "full":
        found.append(_knob("finetune.method", [Setting({"finetune.method": "lora"}, 0.5)]))
    return [knob for knob in found if knob.settings]


def _value(params: Params, name: str) -> Any:
    value: Any = params
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _knob(name: str, settings: list[Setting]) -> Knob:
    block = name.partition(".")[0]
    return Knob(name, OWNERS.get(block, block), tuple(settings))


def _amount(name: str, value: int) -> Knob:
    return _knob(name, [Setting({name: less}, less / value) for less in round_numbers(value, LEAST[name])])


def round_numbers(below: int, least: int) -> list[int]:
    """Whole numbers of at most two significant digits in [least, below), the largest first."""
    found: set[int] = set()
    for power in range(len(str(below))):
        found |= {digits * 10**power for digits in range(1, 100)}
    return sorted((number for number in found if least <= number < below), reverse=True)


def _same_tokens(stage: str, params: Params) -> Knob:
    """Smaller batches and as many more steps: as many tokens in less memory."""
    block = getattr(params, stage)
    settings = []
    for batch in round_numbers(block.batch_size, 1) if block.steps else []:
        steps = math.ceil(block.steps * block.batch_size / batch)
        settings.append(Setting({f"{stage}.batch_size": batch, f"{stage}.steps": steps}, batch / block.batch_size))
    return _knob(f"{stage}.batch_size, {stage}.steps", settings)


def _leaner_steps(params: Params) -> list[Knob]:
    """The same steps in less memory: more parts, less kept of each (and computed again)."""
    block = params.pretrain
    if not block.steps:
        return []
    name, parts = (
        SAME_MODEL[0],
        [more for more in _doublings(block.batch_size) if more > block.gradient_accumulation_steps],
    )
    ways = CHECKPOINTING[CHECKPOINTING.index(block.gradient_checkpointing) + 1 :]
    shares = {"selective": 0.7, "full": 0.3}  # only their order matters
    optimizer, method = "pretrain.optimizer.method", block.optimizer.method
    known = Optimizer.techniques() if method == "adamw" else ()
    lean = [Setting({optimizer: leaner}, share) for leaner, share in LEANER.items() if leaner in known]
    return [
        _knob(optimizer, lean),
        _knob(name, [Setting({name: more}, block.gradient_accumulation_steps / more) for more in parts]),
        _knob(SAME_MODEL[1], [Setting({SAME_MODEL[1]: way}, shares[way]) for way in ways]),
    ]


def _doublings(most: int) -> list[int]:
    """2, 4, 8 and so on below `most`, and `most`: one sequence a part."""
    return [2**power for power in range(1, most.bit_length()) if 2**power < most] + [most]


def _smaller_design(params: Params, about: Subject) -> Knob:
    """Smaller members of the same family, by `parameters`: a budget that no larger member meets."""
    name, technique = f"design.{params.design.method}.parameters", params.design.technique
    sizes, size = list[int](), accounting.parameters(about.config)
    if isinstance(technique, Family):
        for member in technique.ladder():
            count = accounting.parameters(member.config(about.vocab))
            if count >= size:
                break
            sizes.append(count)
    settings = []
    for count, above in reversed(list(pairwise([*sizes, size]))):
        unit = 10 ** max(0, len(str(count)) - 3)
        rounded = -(-count // unit) * unit
        settings.append(Setting({name: rounded if rounded < above else count}, count / size))
    return _knob(name, settings)


def _fewer_engines(params: Params) -> list[Knob]:
    """All engines but one."""
    name, engines = "deploy_profile.engines", params.deploy_profile.engines
    share = (len(engines) - 1) / len(engines)
    rests = [[kept for kept in engines if kept != engine] for engine in engines]
    return [_knob(name, [Setting({name: rest}, share)]) for rest in rests if rest]
