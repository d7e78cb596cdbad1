"""`python -m tasks.acquire NAME`: make a raw input, atomically. The commands of `data/dvc.yaml`."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path

from tasks.core.errors import UserError

MAKERS = {
    "stdlib": "tasks.acquire.stdlib:make",
    "smollm2": "tasks.acquire.smollm2:make",
    "hub": "tasks.acquire.hub:make_dataset",
    "hub_model": "tasks.acquire.hub:make_model",
}


def main(name: str) -> int:
    """Make `data/<name>`; an interrupted attempt leaves nothing there."""
    module, function = MAKERS[name].split(":")
    target = Path("data") / name
    unfinished = Path("work") / "acquire" / name
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        getattr(importlib.import_module(module), function)(unfinished)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.code
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(exist_ok=True)
    os.replace(unfinished, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
