"""Combinations of choices that can't work, found from parameters and config alone, before anything is computed. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tasks.accounting import read
from tasks.accounting.lora import linear_layers
from tasks.accounting.packing import unpackable
from tasks.acquire import is_descriptor, place
from tasks.acquire.doctests import Doctests
from tasks.core.errors import UserError
from tasks.data import NONE
from tasks.data.kinds import CHATS
from tasks.deploy_profile import GGUF_ARCHITECTURES
from tasks.evaluate import LOCAL
from tasks.evaluate.catalogue import unknown
from tasks.finetune.conflicts import conflicts as tuning_conflicts
from tasks.ledger.predict.rows import MADE, kinds_in
from tasks.models import Config, experts, positions
from tasks.models.load import read_config
from tasks.models.quantized import BLOCK_IN, BLOCK_OUT
from tasks.params import Params
from tasks.pretrain.conflicts import conflicts


def check(params: Params, config: Config, *, data: bool = True) -> None:
    """Refuse parameters some stage would have to refuse later.

    Args:
        params: everything a person may turn.
        config: the transformers config of the model they lead to.
        data: whether what the data lacks counts; to a search for the best model it doesn't, for no other model mends it.

    Raises:
        UserError: one line per combination that can't work, each with what to do.
    """
    if found := problems(params, config, data=data):
        raise UserError("\n".join(found))


def check_rows(stage: str, params: Params) -> None:
    """Refuse to pretrain for a finetuning without rows; of a source that had to be fetched nothing was known before.

    Raises:
        UserError: rows of a kind that nobody has given.
    """
    if stage == "pretrain" and params.pretrain.steps and (found := list(_rows(params))):
        raise UserError("\n".join(found))


def problems(params: Params, config: Config, *, data: bool = True) -> list[str]:
    """One sentence per combination that can't work: what was found where, and what to do. Arguments as `check` has them."""
    return [
        *_contexts(params, config),
        *_experts(params, config),
        *(conflicts(params.pretrain) if params.pretrain.steps else ()),
        *_grouped(params, config),
        *_objective(params, config),
        *_documents(params, config),
        *_training(params, config),
        *(_rows(params) if data else ()),
        *_delivery(params, config),
        *_judged(params),
    ]


def _judged(params: Params) -> Iterator[str]:
    """Names alone: whether a task of the hub can be had is found out by the stages, before they train."""
    for name in filter(unknown, params.evaluate.tasks):
        meant = get_close_matches(name, LOCAL, n=1, cutoff=0.7)
        yield (
            f"evaluate.tasks: found '{name}', and no task has that name: take {' or '.join(meant or LOCAL)}, or one that "
            "`lm-eval ls tasks` lists"
        )


def _contexts(params: Params, config: Config) -> Iterator[str]:
    limit, deploy = positions(config), params.deploy_profile
    virtual = params.finetune.technique.positions if params.finetune.steps else 0
    asked = {
        "pretrain.context_length": params.pretrain.context_length if params.pretrain.steps else 0,
        "finetune.context_length": params.finetune.context_length if params.finetune.steps else 0,
        "evaluate.context_length": params.evaluate.context_length,
        "deploy_profile.prompt_tokens + deploy_profile.max_new_tokens": deploy.prompt_tokens + deploy.max_new_tokens,
    }
    for name, tokens in asked.items():
        if limit and tokens > limit:
            yield f"{name}: found {tokens}; the model has {limit} positions: lower it, or design a longer context"
        elif limit and virtual and not name.startswith("pretrain") and tokens + virtual > limit:
            yield (
                f"{name}: found {tokens}; the model has {limit} positions, and finetune.{params.finetune.method} takes {virtual} "
                f"of them: lower it, or finetune.{params.finetune.method}.num_virtual_tokens"
            )


def _objective(params: Params, config: Config) -> Iterator[str]:
    chosen, objective = params.pretrain, params.pretrain.objective
    if not chosen.steps:
        return
    teacher = Path(chosen.teacher)
    there, known = is_descriptor(teacher), place(teacher) / "config.json"
    if objective.method != "distillation":
        if there or known.exists():
            yield (
                f"pretrain.teacher: found {teacher}; objective {objective.method} learns from no teacher: set "
                "pretrain.objective.method to distillation, or pretrain.teacher to data/none"
            )
    elif not there and not known.exists():
        yield f"pretrain.teacher: found {teacher}, and no model there; distillation learns from one: name its folder"
    elif known.exists() and (vocab := read_config(known.parent).get("vocab_size")) != config["vocab_size"]:
        yield (
            f"pretrain.teacher: found {teacher}, with a vocabulary of {vocab}; the model has {config['vocab_size']}: take "
            "a teacher with the same tokenizer"
        )
    if objective.method == "distillation" and (objective.distillation.top_k or 0) > config["vocab_size"]:
        yield (
            f"pretrain.objective.distillation.top_k: found {objective.distillation.top_k}; the vocabulary has "
            f"{config['vocab_size']} tokens: lower it, or set it to null for the whole distribution"
        )


def _documents(params: Params, config: Config) -> Iterator[str]:
    chosen = params.pretrain
    if chosen.steps and chosen.sampling.document_mask and (why := unpackable(config, chosen.context_length)):
        yield f"pretrain.sampling.document_mask: found true; {why}: set it to false"


def _experts(params: Params, config: Config) -> Iterator[str]:
    count, active = experts(config)
    tokens = params.pretrain.batch_size * params.pretrain.context_length
    if params.pretrain.steps and count > tokens * active:
        yield (
            f"pretrain.batch_size x pretrain.context_length: found {tokens} tokens a step, {active} experts each; the "
            f"model has {count} experts, so most learn nothing: raise the batch, or design fewer experts"
        )


def _grouped(params: Params, config: Config) -> Iterator[str]:
    """Torch's grouped products want rows of 16 bytes: a compression to half precision meets them after hours of training."""
    half = params.compress.method == "int8" or (
        params.compress.method == "nf4" and params.compress.nf4.bnb_4bit_compute_dtype != "float32"
    )
    step = 8 if half else 4
    matrices = [matrix for block in read(config).blocks for matrix in block.matrices if matrix.copies > 1]
    if odd := sorted({str(m.inputs) for m in matrices if m.inputs % step}):
        yield (
            f"design.{params.design.method}: its experts read {', '.join(odd)} numbers; products of experts need multiples "
            f"of {step}{f' under compress.method {params.compress.method}' if half else ''}: choose such widths"
        )


def _training(params: Params, config: Config) -> Iterator[str]:
    tuned = params.finetune
    if not tuned.steps:
        return
    yield from tuning_conflicts(tuned, config)
    if why := tuned.technique.refuse(config):
        yield why
    elif not tuned.technique.merges:
        yield from _apart(params)


def _rows(params: Params) -> Iterator[str]:
    """Rows of a kind that nobody has given: found here, they cost no pretraining."""
    data, chosen = params.data, params.finetune.objective
    found, wanted = kinds_in(data), chosen.technique.learns_from
    if not params.finetune.steps or found is None or wanted in found:
        return
    where = f"data.source '{data.source}'" if data.instructions == NONE else f"data.instructions '{data.instructions}'"
    every: dict[str, Any] = dict(chosen.techniques())
    others = [name for name, objective in every.items() if objective.learns_from in found]
    held = " and ".join(sorted(found)) or f"no records, only text ({CHATS} are made of a folder of Python)"
    named = "name such records in data.instructions, or set"
    if not found and wanted in MADE[Doctests]:
        named = "set data.instructions to data/doctests.yaml, or"
    instead = f"it to {' or '.join(others)}" if others else "finetune.steps to 0"
    yield (
        f"finetune.objective.method: found {chosen.method}; it learns from {wanted}, and {where} holds {held}: "
        f"{named} {instead}"
    )


def _apart(params: Params) -> Iterator[str]:
    """What can't be done with a model whose adapter stays apart from it."""
    method, deploy = params.finetune.method, params.deploy_profile
    if params.compress.method != "none":
        yield (
            f"compress.method: found {params.compress.method}; what finetune.method {method} learns stays beside the "
            "model's weights and can't be compressed with them: set compress.method to none, or choose a method that merges"
        )
    if deploy.gguf or deploy.engines != ["transformers"] or deploy.serve != "safetensors":
        yield (
            f"deploy_profile: what finetune.method {method} learns stays beside the model's weights; only transformers runs "
            "that: set deploy_profile.gguf: [], deploy_profile.serve: safetensors and deploy_profile.engines: [transformers]"
        )


def _delivery(params: Params, config: Config) -> Iterator[str]:
    method, deploy = params.compress.method, params.deploy_profile
    quantized = (config.get("quantization_config") or {}).get("quant_method")
    if quantized and method in ("int8", "nf4"):
        yield f"compress.method: found {method}; the model's weights are {quantized} already: set it to none"
    layers = linear_layers(config)[:-1]
    if method == "nf4" and all(layer.inputs % BLOCK_IN or layer.outputs % BLOCK_OUT for layer in layers):
        yield (
            f"compress.method: found nf4; no linear layer has inputs in multiples of {BLOCK_IN} and outputs of "
            f"{BLOCK_OUT}: choose such sizes in design, or another method"
        )
    architecture = (config.get("architectures") or ["none"])[0]
    if deploy.gguf and architecture not in GGUF_ARCHITECTURES:
        yield (
            f"deploy_profile.gguf: found {', '.join(deploy.gguf)}; {architecture} cannot be written as GGUF "
            f"({', '.join(GGUF_ARCHITECTURES)} can): set deploy_profile.gguf: [], deploy_profile.serve: safetensors and "
            "deploy_profile.engines: [transformers]"
        )
