"""Every technique and parameter, as the registry and the schema tell it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tasks.core.errors import UserError
from tasks.core.schema import Choice, Section
from tasks.params import STAGES, Params

_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def text(stage: str | None = None) -> str:
    """The blocks of params.yaml (or one of them) in full."""
    values = Params()
    names = [_known(stage)] if stage else _blocks()
    return "\n\n".join("\n".join(_block(name, name, getattr(values, name), 0)) for name in names)


def markdown(stage: str | None = None) -> str:
    """The table of techniques for the README."""
    rows = ["| stage | technique | what it does | parameters |", "|---|---|---|---|"]
    for name in [_with_techniques(stage)] if stage else STAGES:
        for path, section in _techniques(name, getattr(Params(), name)):
            words = re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", _first_line(section))
            parameters = ", ".join(f"`{key}`" for key in type(section).model_fields)
            rows.append(f"| {name} | `{path}` | {words} | {parameters or 'none'} |")
    return "\n".join(rows)


def _blocks() -> list[str]:
    """The blocks of params.yaml: the stages, and what they share."""
    values = Params()
    return [name for name in Params.model_fields if isinstance(getattr(values, name), Section)]


def _known(stage: str) -> str:
    if stage not in _blocks():
        shared = ", ".join(name for name in _blocks() if name not in STAGES)
        raise UserError(f"{stage}: no such stage", f"stages: {', '.join(STAGES)}; what they share: {shared}")
    return stage


def _with_techniques(stage: str) -> str:
    if not any(_techniques(_known(stage), getattr(Params(), stage))):
        some = [name for name in _blocks() if any(_techniques(name, getattr(Params(), name)))]
        hint = f"those of {', '.join(some)} are; `leanlm techniques {stage}` lists its parameters"
        raise UserError(f"--markdown {stage}: it has no techniques to put into a table", hint)
    return stage


def _techniques(path: str, section: Section) -> Iterator[tuple[str, Section]]:
    """Every technique under `section`, nested choices included, with its dotted path."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            if isinstance(section, Choice) and name in section.techniques():
                yield f"{path}.{name}", value
            yield from _techniques(f"{path}.{name}", value)


def _block(path: str, words: str, section: Section, depth: int) -> list[str]:
    indent = "  " * depth
    lines = [f"{indent}{words}: {_first_line(section)}"]
    schema = type(section).model_json_schema()["properties"] if type(section).model_fields else {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            lines += _block(f"{path}.{name}", name, value, depth + 1)
            continue
        allowed = _allowed(schema[name])
        if isinstance(section, Choice) and name == "method":
            allowed = ", ".join(section.techniques())
        default = json.dumps(list(value) if isinstance(value, tuple) else value)
        lines.append(f"{indent}  {path}.{name} = {default}  ({allowed})  {field.description or ''}".rstrip())
    return lines


def _first_line(section: Section) -> str:
    return (type(section).__doc__ or "").strip().partition("\n")[0]


def _allowed(schema: dict[str, Any]) -> str:
    """The type and bounds of a value, e.g. `integer > 0 or null`."""
    if "anyOf" in schema:
        return " or ".join(_allowed(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    if schema.get("type") == "array":
        item = schema.get("items") or next(iter(schema.get("prefixItems", [])), None)
        return f"list of {_allowed(item)}" if item else "list"
    return f"{schema.get('type', 'any')} {' and '.join(bounds)}".rstrip()
