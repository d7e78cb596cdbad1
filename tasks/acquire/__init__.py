"""Where raw inputs come from: a file or folder is itself; a small YAML file says what to fetch or make.

`data.source` and `pretrain.init` may name such a file, e.g. `data/smollm2.yaml`. DVC watches the file; what it stands for
is made once, kept under `work/raw`, and never changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from tasks.acquire.doctests import Doctests
from tasks.acquire.hub import Dataset, Model
from tasks.acquire.maker import Maker
from tasks.acquire.package import Package
from tasks.acquire.stdlib import Stdlib
from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import validate

MAKERS: dict[str, type[Maker]] = {
    "stdlib": Stdlib,
    "doctests": Doctests,
    "package": Package,
    "dataset": Dataset,
    "model": Model,
}
"""The registry: the one key of a descriptor -> what it stands for."""


CACHE = Path("work/raw")
"""Where what had to be fetched or made is kept."""


def is_descriptor(path: Path) -> bool:
    """Whether `path` is a file that says what to fetch or make, and not the thing itself."""
    return path.suffix in (".yaml", ".yml")


def describe(path: Path) -> Maker:
    """What a descriptor stands for.

    Raises:
        UserError: not a descriptor.
    """
    values = read_yaml(path)
    if len(values) != 1 or next(iter(values)) not in MAKERS:
        raise UserError(
            f"{path}: found {', '.join(map(str, values)) or 'nothing'}; one of {', '.join(MAKERS)} is expected"
        )
    ((kind, block),) = values.items()
    return validate(MAKERS[kind], block or {}, f"{path}: {kind}")


def place(path: Path) -> Path:
    """Where the folder or file behind `path` is, or will be once it is made."""
    if not is_descriptor(path):
        return path
    maker = describe(path)
    identity = json.dumps([type(maker).__name__, maker.identity()], sort_keys=True)
    return CACHE / f"{path.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def acquire(path: Path) -> Path:
    """The folder or file behind `path`, made first if it is a descriptor of something that wasn't made yet.

    Raises:
        UserError: it can't be had: no network, unknown name, other bytes than the descriptor pins.
    """
    target = place(path)
    if is_descriptor(path) and not target.exists():
        unfinished = CACHE / f"{target.name}.{os.getpid()}.tmp"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            describe(path).make(unfinished)
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return target
