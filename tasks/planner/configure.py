"""A candidate as lines of params.yaml, and whether the whole lifecycle can carry it."""

from __future__ import annotations

from typing import Any

from tasks.core.errors import UserError
from tasks.core.schema import validate
from tasks.design import Design
from tasks.design.family import Family
from tasks.params import Params, flatten, override

Values = dict[str, Any]
"""Dotted names of params.yaml -> values."""


def families() -> list[str]:
    """Names of the architecture families that can be sized."""
    return [name for name, technique in Design.techniques().items() if issubclass(technique, Family)]


def chosen_families(names: tuple[str, ...]) -> tuple[str, ...]:
    """`names`, or every family if there are none.

    Raises:
        UserError: one of them is no family.
    """
    for name in names:
        if name not in families():
            raise UserError(f"--family: '{name}' is no architecture family", f"there are: {', '.join(families())}")
    return tuple(dict.fromkeys(names)) or tuple(families())


def check_plannable(params: Params) -> None:
    """Refuse a configuration that doesn't begin with nothing.

    Raises:
        UserError: the model is an existing one, so its size is no choice.
    """
    if params.design.method == "existing":
        raise UserError(
            "design.method: 'existing' takes a model as it is, so there is nothing to choose",
            "plan a new one with design.method: llama and pretrain.init: data/none",
        )


def configured(params: Params, values: Values) -> Params:
    """`params` with values assigned, validated."""
    return validate(Params, override(params.model_dump(mode="json"), values))


def with_steps(params: Params, steps: int) -> Params:
    """`params` with another length of pretraining."""
    return params.model_copy(update={"pretrain": params.pretrain.model_copy(update={"steps": steps})})


def sized(params: Params, name: str, member: Family) -> Values:
    """The lines that make `member` the model, only those that differ from what is there."""
    there = dict(flatten({name: getattr(params.design, name).model_dump(mode="json")}))
    wanted = dict(flatten({name: {**member.model_dump(mode="json"), "parameters": None}}))
    changed = {f"design.{key}": value for key, value in wanted.items() if there.get(key) != value}
    return {"design.method": name, **changed}


def reading(params: Params, name: str, context: int | None) -> Values:
    """The lines that let it read `context` tokens: positions, and training at that length, as many tokens a step."""
    if context is None:
        return {}
    values: Values = {}
    member = getattr(params.design, name)
    for field in ("max_position_embeddings", "context_length"):
        if getattr(member, field, context) < context:
            values[f"design.{name}.{field}"] = context
    if params.pretrain.context_length < context:
        tokens = params.pretrain.batch_size * params.pretrain.context_length
        values |= {"pretrain.context_length": context, "pretrain.batch_size": max(1, tokens // context)}
    return values


def kinds(params: Params) -> list[Values]:
    """What the file's size and speed can be traded for quality with: GGUF types, or compressions where none is written."""
    profile = params.deploy_profile
    if profile.gguf and "llama_cpp" in profile.engines:
        return [{"deploy_profile.serve": kind} for kind in profile.gguf]
    methods = dict.fromkeys((params.compress.method, "none", "int8", "nf4"))
    return [{"compress.method": method} for method in methods]
