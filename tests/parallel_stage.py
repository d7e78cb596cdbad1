"""`python -m tests.parallel_stage FOLDER STEPS [JSON]`: the stage on two workers, to be killed from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tasks.core.job import Job
from tasks.core.measure import Metrics
from tasks.evaluate import Evaluate
from tasks.ledger.watch import Watch
from tasks.pretrain import Pretrain
from tasks.pretrain.run import run
from tests import pretrain_inputs


def pretrained(folder: Path, steps: int, over_budget: Any = None, **changes: Any) -> Metrics:
    """Run the stage; what is below the folder already is gone on from."""
    values: dict[str, Any] = {"steps": steps, "batch_size": 4, "context_length": 16, "precision": "fp32"}
    values |= {"eval_every": steps, "checkpoint_every": 10, "parallel": {"nproc_per_node": 2}} | changes
    inputs = {name: folder / name for name in ("data", "design", "init")}
    if not inputs["data"].exists():
        pretrain_inputs.make(folder)
    for place in (folder / "out", folder / "work"):
        place.mkdir(exist_ok=True)
    job = Job("pretrain", folder / "work")
    if over_budget is not None:
        job.over_budget = over_budget
    if isinstance(over_budget, Watch):
        job.spent, job.left = over_budget.spent, over_budget.left
    evaluate = Evaluate(context_length=16, sample_tokens=4)
    return run(Pretrain(**values), seed=0, evaluate=evaluate, out=folder / "out", job=job, **inputs)


if __name__ == "__main__":
    pretrained(Path(sys.argv[1]), int(sys.argv[2]), **json.loads("".join(sys.argv[3:]) or "{}"))
