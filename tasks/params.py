"""params.yaml as one typed tree: load, override, render. No torch.

`python -m tasks.params` prints the default configuration with a comment on every value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from tasks.compress import Compress
from tasks.core.errors import UserError
from tasks.core.files import read_yaml
from tasks.core.schema import Choice, Section, validate
from tasks.data import Data
from tasks.deploy_profile import DeployProfile
from tasks.design import Design
from tasks.evaluate import Evaluate
from tasks.finetune import Finetune
from tasks.ledger import Budget, Prices
from tasks.pretrain import Pretrain

PATH = Path("params.yaml")


class Params(Section):
    """Every value a person may turn."""

    seed: NonNegativeInt = 0
    """Seeds every random choice."""
    data: Data = Data()
    design: Design = Design()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    compress: Compress = Compress()
    deploy_profile: DeployProfile = DeployProfile()
    evaluate: Evaluate = Evaluate()
    budget: Budget = Budget()
    prices: Prices = Prices()


STAGES: dict[str, type[Section]] = {
    "data": Data,
    "design": Design,
    "pretrain": Pretrain,
    "finetune": Finetune,
    "compress": Compress,
    "deploy_profile": DeployProfile,
}
"""Stage -> its block, in the order of the lifecycle."""


def load(path: Path = PATH) -> Params:
    """Read and validate params.yaml.

    Raises:
        UserError: one line per mistake.
    """
    return validate(Params, read_yaml(path))


def override(values: dict[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `values` with dotted names assigned, e.g. `{"finetune.lora.r": 16}`.

    Raises:
        UserError: a name that is no parameter.
    """
    import copy

    result = copy.deepcopy(values)
    known = dict(flatten(Params().model_dump(mode="json")))
    for name, value in assignments.items():
        inside = any(value == {} and name.startswith(f"{key}.") for key, value in known.items())
        if name not in known and not inside and not any(key.startswith(f"{name}.") for key in known):
            raise UserError(f"{name}: unknown parameter", _nearest(name, list(known)))
        *parents, last = _parts(name, known)
        block = result
        for parent in parents:
            block = block.setdefault(parent, {})
            if not isinstance(block, dict):
                raise UserError(f"{name}: {parent} is a section, and was given the value {block!r}")
        block[last] = value
    return result


def _parts(name: str, known: Mapping[str, Any]) -> list[str]:
    """The blocks on the way to a parameter; what follows a parameter that is a mapping is one key, dots and all."""
    for key, value in known.items():
        if value == {} and name.startswith(f"{key}."):
            return [*key.split("."), name.removeprefix(f"{key}.")]
    return name.split(".")


def _nearest(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(close)}?" if close else "`leanlm techniques` lists every parameter"


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and leaf values, e.g. `("finetune.lora.r", 8)`."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def render(params: Params) -> str:
    """`params` as the text of params.yaml, every value with its description as a comment."""
    lines = [
        "# Every value a person may turn. Change one here, or with `leanlm run -S finetune.lora.r=16`,",
        "# and only the stages that depend on it run again.",
    ]
    for name, field in type(params).model_fields.items():
        value = getattr(params, name)
        lines += ["", *_render_field(name, field.description, value, 0)]
    return "\n".join(lines) + "\n"


def _render_field(name: str, description: str | None, value: Any, depth: int) -> list[str]:
    import json

    indent = "  " * depth
    if not isinstance(value, Section):
        plain = value if not isinstance(value, tuple) else list(value)
        comment = f"  # {description}" if description else ""
        return [f"{indent}{name}: {json.dumps(plain, ensure_ascii=False)}{comment}"]
    words = (description or type(value).__doc__ or "").strip().splitlines()
    empty = not type(value).model_fields
    lines = [f"{indent}{name}:{' {}' if empty else ''}  # {words[0] if words else ''}".rstrip(" #")]
    for key, field in type(value).model_fields.items():
        text = field.description
        if key == "method" and isinstance(value, Choice):
            text = f"{text} One of: {', '.join(value.techniques())}."
        lines += _render_field(key, text, getattr(value, key), depth + 1)
    return lines


if __name__ == "__main__":
    print(render(Params()), end="")
