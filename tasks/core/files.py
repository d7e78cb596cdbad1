"""Files: YAML as plain values, and writing so that a kill or a power cut leaves the old or the new."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as plain values (`ruamel.yaml`, YAML 1.2: 3e-3 is a number).

    Raises:
        UserError: the file is missing, not UTF-8, not YAML, or not a mapping.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found", "run from the project's folder, or restore it from git") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping, found {type(values).__name__}")
    return values


def sync(path: Path) -> None:
    """Let what was written to a file, or the names in a folder, reach the disk; some file systems know no such folders."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(opened)


def write_whole(path: Path, text: str) -> None:
    """Put `text` at `path`: a reader, and whoever comes after a kill, finds the old or the new, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_durably(path: Path, text: str) -> None:
    """Put `text` at `path`: once this returns it is on the disk, and nobody ever finds half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)
