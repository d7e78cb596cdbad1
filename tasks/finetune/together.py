"""Several adapters of one base in one process: its frozen weights are in memory once.

    python -m tasks.finetune.together CONFIG.yaml --out DIR

They are trained one after the other, each as the finetune stage would train it alone: what comes out is the same, bit for
bit. Killed, the same command goes on where it stopped. They are of one peft type: LoRA and its kin are, LoRA and IA3 aren't.
CONFIG.yaml:

    base: artifacts/pretrain     # a model folder
    data: artifacts/data         # what the data stage wrote
    seed: 0
    adapters:                    # name -> what a `finetune:` block may say
      small: {method: lora, steps: 50, lora: {r: 4}}
      large: {method: lora, steps: 50, lora: {r: 32}}
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.core.errors import UserError
from tasks.core.files import read_yaml, write_whole
from tasks.core.job import Job
from tasks.core.measure import Metrics, measured
from tasks.core.process import prepare
from tasks.core.schema import Section, validate
from tasks.finetune import Finetune
from tasks.finetune.shared.adapter import PeftTuning
from tasks.finetune.sharing import refuse, refuse_folders
from tasks.finetune.technique import Plan


class Together(Section):
    """Adapters to train from one base."""

    base: str
    """Folder of the base model."""
    data: str
    """Folder the data stage wrote."""
    seed: int = 0
    """Of every adapter."""
    adapters: dict[str, Finetune] = Field(min_length=1)
    """Name of the adapter, and of its folder -> how it is trained."""


@dataclass
class Trained:
    """What came of it.

    Attributes:
        model: the base with every adapter beside it, by name.
        metrics: of every adapter's training.
    """

    model: Any = None
    metrics: dict[str, Metrics] = field(default_factory=dict)


def train(params: Together, out: Path, work: Path, job_of: Callable[[str, Path], Job] = Job) -> Trained:
    """Train every adapter and write each to `out/NAME`, as plain peft loads it.

    Args:
        params: base, data, adapters.
        out: a folder per adapter appears here.
        work: checkpoints to go on from; a folder per adapter, keyed by what it was told.
        job_of: makes the job of an adapter's training from a name and its work folder.

    Raises:
        UserError: folders that aren't what they should be, techniques that can't share a base, chats that don't fit, or
            parameters that exclude each other.
    """
    from tasks.finetune.fitting import fit, given
    from tasks.models.load import load_tokenizer, read_config
    from tasks.training.recompute import keep_everything

    base, data = Path(params.base), Path(params.data)
    refuse_folders(base, data)
    tokenizer, config = load_tokenizer(base), read_config(base)
    refuse(params.adapters, config, params.seed)
    done, model = Trained(), next(iter(params.adapters.values())).technique.load(base)
    for name, chosen in params.adapters.items():
        place = work / f"{name}-{_key(chosen, params)}"
        place.mkdir(parents=True, exist_ok=True)
        tuning = _add(model, name, chosen, Plan(base, place, chosen.steps, params.seed, chosen.optimizer.technique))
        model = tuning.model
        job = job_of(name, place)
        reload = partial(chosen.technique.load, base)
        lesson = chosen.objective.technique.lesson(given(chosen, config, data, tokenizer, params.seed, job, reload))
        lesson.begin(model)
        done.metrics[name] = fit(tuning, chosen, params.seed, lesson, job)
        keep_everything(model)
        tuning.write(out)
    done.model = model
    return done


class _Named(PeftTuning):
    """One of several adapters of a `PeftModel`."""

    def __init__(self, model: Any, name: str, fixed: bool) -> None:
        super().__init__(model, merges=False)
        self.name, self.fixed = name, fixed

    def write(self, folder: Path) -> bool:
        """The adapter in `folder/NAME`, the bytes it would have alone."""
        self.settled()
        self.model.save_pretrained(folder, selected_adapters=[self.name])
        return True


def _add(model: Any, name: str, chosen: Finetune, plan: Plan) -> _Named:
    """Put another adapter beside the frozen weights of `model`, a plain one or a `PeftModel`; it alone is trained.

    Raises:
        UserError: it doesn't fit the model, or would change the weights the others stand on.
    """
    import torch
    from peft import PeftModel, get_peft_model

    standing = list(model.parameters())
    before = _digest(standing)
    torch.manual_seed(plan.seed)  # as the stage does before an adapter's first numbers are drawn
    try:
        if isinstance(model, PeftModel):
            model.add_adapter(name, chosen.technique.peft_config(model.get_base_model(), plan))
        else:
            model = get_peft_model(model, chosen.technique.peft_config(model, plan), adapter_name=name)
    except ValueError as error:
        raise UserError(f"adapters.{name}: finetune.{chosen.method} doesn't fit: {error}") from None
    model.set_adapter(name)
    for other, prompt in getattr(model, "prompt_encoder", {}).items():
        prompt.requires_grad_(other == name)  # where virtual tokens are concerned, peft leaves them all as they are
    if _digest(standing) != before:
        raise UserError(
            f"adapters.{name}: finetune.{chosen.method} changes the base's own weights, which the other adapters stand on",
            "train it by itself, with the finetune stage",
        )
    return _Named(model, name, chosen.technique.fixed)


def _digest(parameters: list[Any]) -> str:
    """Of the bytes of tensors."""
    import torch

    mine = hashlib.sha256()
    for parameter in parameters:
        mine.update(parameter.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy())
    return mine.hexdigest()


def _key(chosen: Finetune, params: Together) -> str:
    """Of everything an adapter's checkpoints depend on but the code."""
    told = json.dumps([chosen.model_dump(mode="json"), params.base, params.data, params.seed], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def main() -> int:
    """Train the adapters of a file; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.finetune.together", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a folder per adapter, together.json, and work/")
    given = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from tasks.ledger.meter import own_peak_bytes
    from tasks.ledger.report import to_json

    try:
        params = validate(Together, read_yaml(given.config), str(given.config))
        done = train(params, given.out, given.out / "work")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.code
    peak: Metrics = {"peak_memory_bytes": measured(own_peak_bytes(), f"{len(params.adapters)} adapters, one base")}
    report = {"together": to_json(peak), "adapters": {name: to_json(found) for name, found in done.metrics.items()}}
    write_whole(given.out / "together.json", json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    prepare()
    sys.exit(main())
