"""One small run of the ladder: what identifies it, and how it is trained; whatever it leaves survives a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tasks.acquire import acquire
from tasks.core.files import write_whole
from tasks.core.job import Job

WORK = Path("work/scale")
"""Rungs by key: unfinished ones hold a checkpoint, finished ones `result.json`."""

CODE = ("training", "pretrain", "optimizers", "objectives", "models", "evaluate")
"""Packages of `tasks` whose code decides what a rung comes out as."""


@dataclass(frozen=True)
class Rung:
    """A model and how long it is trained.

    Attributes:
        sizes: of the model, by the family's field names.
        blueprint: transformers config.
        pretrain, evaluate: the sections of params.yaml it runs with.
        parameters: N, active ones without embeddings.
        flops: of all steps, counted from the config.
        data: `law.data_key` of the text.
    """

    sizes: dict[str, Any]
    blueprint: dict[str, Any]
    pretrain: dict[str, Any]
    evaluate: dict[str, Any]
    seed: int
    parameters: int
    flops: float
    data: str

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return int(self.pretrain["steps"])

    @property
    def tokens(self) -> int:
        """Tokens it is trained on."""
        return self.steps * int(self.pretrain["batch_size"]) * int(self.pretrain["context_length"])

    @property
    def folder(self) -> Path:
        """Where it works: keyed by parameters, data and code, so that an equal rung is never trained again."""
        words = json.dumps([self.blueprint, self.pretrain, self.evaluate, self.seed, self.data], sort_keys=True)
        return WORK / hashlib.sha256(f"{words} {_code()}".encode()).hexdigest()[:16]

    def result(self) -> dict[str, float] | None:
        """What came out: bits_per_byte, seconds, flops; None while it is unfinished."""
        try:
            found: dict[str, float] = json.loads((self.folder / "result.json").read_text(encoding="utf-8"))
            return {name: float(found[name]) for name in ("bits_per_byte", "seconds", "flops")}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def prepare(self) -> Path:
        """Write what the child process needs, and return the folder."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "rung.json", asdict(self))
        return folder


def train(folder: Path, data: Path, over_budget: Callable[[float], str]) -> None:
    """Train the rung of `folder`, on from its checkpoint if there is one, and leave `result.json` alone behind.

    Args:
        folder: as `Rung.prepare` left it.
        data: what the data stage wrote.
        over_budget: given the FLOPs done, the sentence that says what ran out, or "".

    Raises:
        Diverged: its loss is not a number.
        OverBudget: stopped at a step, with a checkpoint.
    """
    from tasks.evaluate import Evaluate
    from tasks.pretrain import Pretrain
    from tasks.pretrain.run import run

    rung = Rung(**json.loads((folder / "rung.json").read_text(encoding="utf-8")))
    design, out = folder / "design", folder / "out"
    for path in (design, out):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    _write(design / "blueprint.json", rung.blueprint)
    metrics = run(
        Pretrain.model_validate(rung.pretrain),
        seed=rung.seed,
        evaluate=Evaluate.model_validate(rung.evaluate),
        data=data,
        design=design,
        init=design,  # a folder without weights: from scratch
        teacher=acquire(Path(rung.pretrain.get("teacher", "data/none"))),
        out=out,
        job=Job("pretrain", folder, over_budget),
    )
    names = {"bits_per_byte": "bits_per_byte", "seconds": "training_seconds", "flops": "flops"}
    _write(folder / "result.json", {name: metrics[metric].value for name, metric in names.items()})
    for path in (design, out, folder / "teacher", *folder.glob("checkpoint-*")):
        shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, value: Any) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@cache
def _code() -> str:
    """Identity of the code that trains."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for name in CODE:
        for file in sorted((root / name).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
