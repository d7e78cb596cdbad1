"""YAML files as plain values."""

from __future__ import annotations

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
